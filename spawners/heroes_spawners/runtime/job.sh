#!/bin/sh
# job.sh BASE KEY         the job: take the run claim, run what `launch` says, leave a record
# job.sh BASE KEY task    one task of a parallel job, started by the launcher
#
# A fork costs a millisecond, and this runs once per job: what the shell can do itself, it does itself.
base=$1 key=$2
folder=$base/jobs/$key
id=${SLURM_JOB_ID:-${HEROES_JOB_ID:-0}}
umask 022

say() { echo "heroes: $*" >&2; }

# The image must be the one that was asked for. Hashing takes seconds a gigabyte, so a match is remembered with what
# identifies the file.
check_image() {
    if ! now=$(stat -L -c '%s %.9Y %.9Z %i' -- "$1"); then
        say "the image $1 is not on this node: ask the centre for it, or choose another place"
        exit 123
    fi
    stamp=$base/runtime/images/$2
    if [ -r "$stamp" ] && read -r seen < "$stamp" && [ "$seen" = "$now $1" ]; then return; fi
    found=$(sha256sum < "$1")
    if [ "${found%% *}" != "$2" ]; then
        say "the image $1 has digest sha256:${found%% *}, not sha256:$2: it was replaced since it was registered"
        exit 123
    fi
    mkdir -p "$base/runtime/images" && echo "$now $1" > "$stamp.$$" && mv -f "$stamp.$$" "$stamp"
}

if [ "${3-}" = task ]; then
    . "$folder/task"
    exec "$@"
fi

if [ ! -d "$base/claims/$key" ]; then
    say "no submission of $key was claimed here: this job does not run"
    exit 121
fi
read -r nonce < /proc/sys/kernel/random/uuid
mine=$base/run/.$key.$nonce
mkdir -p "$mine" "$folder/out" || exit 125
echo "$id $nonce" > "$mine/owner" || exit 125
# NFS repeats requests: an error may hide a success, so ask who owns it.
if ! mv -T "$mine" "$base/run/$key" 2> /dev/null; then
    owner=
    [ -r "$base/run/$key/owner" ] && read -r owner < "$base/run/$key/owner"
    if [ "$owner" != "$id $nonce" ]; then
        rm -rf "$mine"
        say "duplicate: $key is executed by ${owner% *}"
        exit 122
    fi
fi

beat=
heartbeat() {
    ( while sleep 60; do : > "$base/run/$key/alive"; done ) < /dev/null > /dev/null 2>&1 &
    beat=$!
}

# A time limit or a cancellation signals every process: the job's own dies of it, this one still leaves the record.
trap : TERM INT HUP XCPU
read -r begun rest < /proc/uptime
. "$folder/launch"
"$@" < /dev/null
status=$?
read -r ended rest < /proc/uptime
[ -z "$beat" ] || kill "$beat"

elapsed=$(( ${ended%.*}${ended#*.} - ${begun%.*}${begun#*.} ))
fraction=$(( elapsed % 100 + 100 ))
record=$base/records/.$key.$nonce
complete=1
{
    echo "$id $status $(( elapsed / 100 )).${fraction#1}" || complete=
    for report in "$folder"/energy*.json; do
        [ -r "$report" ] && IFS= read -r line < "$report" || continue
        printf '%s\n' "$line" || complete=
    done
} > "$record" || complete=
[ -z "$complete" ] || mv -f "$record" "$base/records/$key"
exit "$status"
