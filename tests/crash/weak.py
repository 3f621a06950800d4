"""The test of the test: the pushed runtime with its guards taken out, one after the other.

`no-claim` hands a submission over whenever its name is not found at the scheduler, as many systems do: no claim, no
fence, and `status` looks the name up. `no-run-claim` lets a job run, too, whoever else has run it. A guard whose text
is not found is an error: then the runtime has changed, and this file has to follow.
"""

from __future__ import annotations

from heroes_spawners.runtime.bundle import Bundle, digest

GUARDS = ("", "no-claim", "no-run-claim")

#: (file, guard, what takes its place)
_NO_CLAIM = (
    ("wrapper.sh", "    submit | give-up | cancel | seal | remove | remove-data) fence ;;\n", "    none) ;;\n"),
    ("wrapper.sh", "    fence) fence ;;\n", "    fence) ;;\n"),
    (
        "wrapper.sh",
        'if ! mv -T "tmp/$nonce/$key.$number" "$claim" 2>/dev/null; then',
        'rm -rf "$claim"; if ! mv -T "tmp/$nonce/$key.$number" "$claim"; then',
    ),
    ("wrapper.sh", "status() {\n", "status() { looked_up; }\nnever_asked() {\n"),
    ("wrapper.sh", "printf 'begin %s\\n' \"$nonce\"\n", "@LOOK_UP@printf 'begin %s\\n' \"$nonce\"\n"),
)
_LOOK_UP = """
looked_up() { # by name, in the queue and in accounting; one question for all, so that the answer comes in time
    part claims
    known=$(
        timeout -k 5 20 squeue --user="$LOGNAME" -h -o '%j %i'
        timeout -k 5 60 sacct --user="$LOGNAME" -X -n -P -S now-1hour -o JobName,JobIDRaw | tr '|' ' '
    )
    while read -r key; do
        id=$(printf '%s\\n' "$known" | sed -n "s/^$key //p" | head -n 1)
        [ -z "$id" ] || printf '%s 1 %s -\\n' "$key" "$id"
    done
}
"""
_NO_RUN_CLAIM = (("job.sh", '    if [ "$owner" != "$id $nonce" ]; then\n', "    if false; then\n"),)


def weakened(whole: Bundle, guard: str) -> Bundle:
    """The runtime without the guards up to `guard`; `guard` "" is the runtime as it is."""
    files = dict(whole.files)
    out = GUARDS.index(guard)
    for changes, level in ((_NO_CLAIM, 1), (_NO_RUN_CLAIM, 2)):
        for name, text, other in changes if out >= level else ():
            files[name] = _replaced(files[name].decode(), text, other.replace("@LOOK_UP@", _LOOK_UP)).encode()
    return Bundle(files, digest(files))


def _replaced(whole: str, text: str, other: str) -> str:
    if whole.count(text) != 1:
        raise AssertionError(f"the guard {text!r} stands {whole.count(text)} times in the runtime: adapt tests/crash")
    return whole.replace(text, other)
