# sh -c TEXT heroes NONCE BASE PROGRAM...     what a login node can do for the platform
set -u
umask 077
LC_ALL=C TZ=UTC PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/opt/slurm/bin
export LC_ALL TZ PATH
nonce=$1 base=${2:-$HOME/heroes}
shift 2
part() { printf '\npart %s %s\n' "$nonce" "$1"; }
finish() { printf '\nend %s\n' "$nonce"; exit 0; }
fail() { part error; printf '%s\n%s\n' "$1" "$2"; finish; }
lacks() { printf 'lacks %s\n' "$*"; }

printf 'begin %s\n' "$nonce"
part facts
printf 'clock %s\n' "$(date +%s.%N)"
printf 'home %s\nbase %s\n' "$HOME" "$base"
for program; do
    command -v "$program" >/dev/null 2>&1 || lacks "the program $program"
done
if mkdir -p "$base/tmp" && cd "$base"; then
    probe=tmp/probe.$nonce
    mkdir "$probe" "$probe/one" "$probe/two" && : >"$probe/one/owner" && : >"$probe/two/owner"
    (flock -s -n 9 && flock -x -n 9) 9>"$probe/lock" 2>/dev/null || lacks "file locks (flock) in $base"
    mv -T "$probe/one" "$probe/two" 2>/dev/null && lacks "an atomic rename of folders in $base"
    [ -n "$(find "$probe" -maxdepth 0 -newerct @1 -printf %C@ 2>/dev/null)" ] || lacks "GNU find"
    [ "$(printf 'a\0b\0' | head -z -n 1 | tr -d '\0')" = a ] || lacks "GNU head (coreutils 8.25 or newer)"
    : | tar -c -f - --format=posix --null -T - >/dev/null 2>&1 || lacks "GNU tar"
    rm -rf "$probe"
    [ ! -r epoch ] || printf 'epoch %s\n' "$(cat epoch)"
else
    lacks "a folder $base that can be written"
fi
printf 'version %s\n' "$(sbatch --version 2>/dev/null)"
text=$(timeout 30 scontrol show config 2>&1) || fail scheduler "$text"
part config
printf '%s\n' "$text"
text=$(timeout 30 scontrol -o show partition 2>&1) || fail scheduler "$text"
part partitions
printf '%s\n' "$text"
text=$(timeout 30 sinfo -h -o '%R|%D|%c|%m|%G|%t' 2>&1) || fail scheduler "$text"
part nodes
printf '%s\n' "$text"
part accounting
timeout 30 sacct -n -P -S now-1minute >/dev/null 2>&1 && printf 'works\n'
finish
