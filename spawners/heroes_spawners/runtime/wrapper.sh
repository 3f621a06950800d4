#!/bin/sh
# What the platform runs at a login node: one call, one batch on standard input, one framed answer.
#
#   sh wrapper.sh VERB NONCE BASE EPOCH [ARGUMENT...]
#
# The answer begins with "begin NONCE" and ends with "end NONCE"; between them stand parts, each after a line
# "part NONCE NAME". Without its end it is no answer. Keys, numbers and options reach this script checked; no other
# text is ever split into words. A fork costs a millisecond: what the shell can do itself, it does itself.
set -u -f
umask 077
# The scheduler's commands see no variable that changes what they print or do (SQUEUE_FORMAT, SBATCH_*, ...).
if [ -z "${HEROES_CLEAN-}" ]; then
    PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/opt/slurm/bin LOGNAME=${LOGNAME:-$(id -un)}
    exec env -i HEROES_CLEAN=1 PATH="$PATH" HOME="$HOME" LOGNAME="$LOGNAME" USER="$LOGNAME" LC_ALL=C TZ=UTC \
        ${SLURM_CONF:+"SLURM_CONF=$SLURM_CONF"} sh "$0" "$@"
fi
unset HEROES_CLEAN
verb=$1 nonce=$2 base=$3 epoch=$4
shift 4
newline='
'
runtime=${0%/*}

part() { printf '\npart %s %s\n' "$nonce" "$1"; }

finish() {
    printf '\nend %s\n' "$nonce"
    exit 0
}

fail() { # KIND TEXT
    part error
    printf '%s\n%s\n' "$1" "$2"
    finish
}

# Mutations hold the lock shared while they last; a higher epoch takes it alone, so it begins after they have ended.
fence() {
    exec 9>>lock || fail storage "the lock in $base cannot be written"
    flock -s -w 30 9 || fail busy 'another engine has the lock'
    read_epoch
    [ "$epoch" -gt "$seen" ] || return 0
    flock -u 9
    flock -x -w 60 9 || fail busy 'commands of another engine have not ended'
    read_epoch
    if [ "$epoch" -gt "$seen" ]; then
        printf '%s\n' "$epoch" >"epoch.$nonce" && mv -f "epoch.$nonce" epoch || fail storage 'the epoch cannot be written'
    fi
    flock -s -w 30 9 || fail busy 'another engine has the lock'
    read_epoch
}

read_epoch() {
    seen=0
    [ ! -r epoch ] || read -r seen <epoch
    [ "$epoch" -ge "${seen:=0}" ] || fail stale "$seen"
}

# ---- submissions ------------------------------------------------------------------------------------------------

# Standard input: a tar with the jobs' folders, a private claim tmp/NONCE/KEY.NUMBER/owner for each, and, last, the list
# tmp/NONCE.list: "KEY NUMBER OPTION...". A stream that was cut has no list, so nothing of it is submitted.
submit() {
    text=$(tar -x -f - --no-same-owner 2>&1) || fail storage "$text"
    [ -r "tmp/$nonce.list" ] || fail truncated 'the batch did not arrive whole'
    part answers
    answers='' unreachable=''
    while read -r key number options; do
        submit_one
    done <"tmp/$nonce.list"
    # The answers are on their way to the platform's own store; here they serve a link that was lost meanwhile.
    [ -z "$answers" ] || sync $answers 2>/dev/null
    rm -rf "tmp/$nonce" "tmp/$nonce.list" "tmp/$nonce.out" "tmp/$nonce.err"
}

submit_one() {
    claim=claims/$key/$number
    if [ -n "$unreachable" ]; then
        # Not claimed: nothing has been tried under this number.
        [ -e "$claim" ] || { printf '%s %s down - \n' "$key" "$number"; return; }
    fi
    if ! mv -T "tmp/$nonce/$key.$number" "$claim" 2>/dev/null; then
        # A repeated request (NFS) fails although it was ours: the owner's nonce tells.
        owner=
        [ ! -r "$claim/owner" ] || read -r owner <"$claim/owner"
        if [ "$owner" != "$nonce" ]; then
            answer_before
            return
        fi
    fi
    # ALL of an environment that was emptied above: NONE would make each node log the account in for each job.
    # shellcheck disable=SC2086  # options are words of a checked alphabet; set -f keeps them from globbing
    timeout -k 5 45 sbatch --parsable --job-name="$key" --no-requeue --dependency=singleton --export=ALL \
        --chdir="$PWD/jobs/$key" --output=stdout --error=stderr --open-mode=append --input=/dev/null \
        $options "$runtime/job.sh" "$PWD" "$key" >"tmp/$nonce.out" 2>"tmp/$nonce.err" </dev/null
    status=$?
    id='' rest=''
    read -r id rest <"tmp/$nonce.out"
    id=${id%%;*}
    case $id in '' | *[!0-9]*) id=- ;; esac
    [ "$status:$id" != 0:- ] || status=unread
    join_lines "tmp/$nonce.err"
    # One line with its end mark: as good as a rename for telling a whole answer from a torn one, without a fork.
    printf '%s %s . %s\n' "$status" "$id" "$joined" >"$claim/answer"
    answers="$answers $claim/answer"
    printf '%s %s %s %s %s\n' "$key" "$number" "$status" "$id" "$joined"
    case $status:$joined in
        124:* | 137:* | *'Unable to contact slurm controller'*) unreachable=1 ;;
    esac
}

# What stands at a claim that is not ours: the answer it got, or that it is unknown.
answer_before() {
    status='' id='' mark='' joined=''
    [ ! -r "$claim/answer" ] || read -r status id mark joined <"$claim/answer"
    if [ "$mark" = . ]; then
        printf '%s %s %s %s %s\n' "$key" "$number" "$status" "$id" "$joined"
    elif [ -d "$claim" ]; then
        printf '%s %s claimed - \n' "$key" "$number"
    else
        printf '%s %s unclaimed - \n' "$key" "$number"
    fi
}

join_lines() { # FILE -> joined
    joined='' lines=0
    while IFS= read -r line && [ $lines -lt 20 ]; do
        joined="$joined$line; " lines=$((lines + 1))
    done <"$1"
}

# "KEY NUMBER JOB-ID RUN-CLAIM" of each key on standard input that has a claim of either kind; "-" for none.
status() {
    part claims
    while read -r key; do
        last=0 id=- run=-
        set +f
        for claim in claims/"$key"/*; do
            number=${claim##*/}
            case $number in *[!0-9]*) continue ;; esac
            [ "$number" -le "$last" ] || last=$number
        done
        set -f
        if [ -r "claims/$key/$last/answer" ]; then
            answer='' found='' mark='' text=''
            read -r answer found mark text <"claims/$key/$last/answer"
            [ "$mark" != . ] || id=$found
        fi
        [ ! -r "run/$key/owner" ] || read -r run text <"run/$key/owner"
        [ "$last$run" = 0- ] || printf '%s %s %s %s\n' "$key" "$last" "$id" "${run:--}"
    done
}

# ---- what the scheduler says ------------------------------------------------------------------------------------

poll() { # SINCE, seconds of the file system's own clock
    queue=$(timeout -k 5 30 squeue --user="$LOGNAME" -h -o '%i|%T|%r|%V|%S|%C|%D|%j' 2>&1) || fail scheduler "$queue"
    load=$(timeout -k 5 30 sinfo -h -o '%R|%C' 2>&1) || fail scheduler "$load"
    part queue
    printf '%s' "$queue"
    part load
    printf '%s' "$load"
    changed "$1"
}

# Exit records and run claims since SINCE, as a tar; tmp/stamp in it has the file system's present time.
changed() {
    : >tmp/stamp
    part files
    find tmp/stamp records run -maxdepth 1 -name '[!.]*' \( -path tmp/stamp -o -path 'records/*' -type f -size -129 \
        -o -path 'run/*' -type d \) -newerct "@$1" -print0 | tar -c -f - --format=posix --null -T - 2>/dev/null
    [ $? -le 1 ] || fail storage 'records cannot be read'
}

accounting() { # SINCE
    read_names
    text=$(timeout -k 5 60 sacct --name="$names" -S "$1" --duplicates -P -n \
        --format=JobIDRaw,State,ExitCode,Submit,Start,End,ElapsedRaw,AllocCPUS,AllocNodes,AllocTRES,MaxRSS,JobName 2>&1) ||
        fail scheduler "$text"
    part accounting
    printf '%s' "$text"
}

read_names() { # standard input -> names, separated by commas
    names=
    while read -r key; do names="$names,$key"; done
    names=${names#,}
}

cancel() {
    read_names
    queue=$(timeout -k 5 30 squeue --user="$LOGNAME" --name="$names" -h -o '%i' 2>&1) || fail scheduler "$queue"
    # shellcheck disable=SC2086  # job ids
    [ -z "$queue" ] || end_jobs $queue
}

# Job ids on standard input, of jobs that are not ours: one that has a name of ours by now is left alone.
cancel_foreign() {
    fence
    wanted=' '
    while read -r id; do wanted="$wanted$id "; done
    queue=$(timeout -k 5 30 squeue --user="$LOGNAME" -h -o '%i %j' 2>&1) || fail scheduler "$queue"
    set --
    while read -r id name; do
        id=${id%%[_+]*}
        case $wanted in *" $id "*) ;; *) continue ;; esac
        case $name in *[!0-9A-Z]*) ;; ??????????????????????????) continue ;; esac
        set -- "$@" "$id"
    done <<EOF
$queue
EOF
    [ $# -eq 0 ] || end_jobs "$@"
}

end_jobs() {
    text=$(timeout -k 5 45 scancel "$@" 2>&1) && return 0
    IFS=$newline
    for line in $text; do
        case $line in
            *'Invalid job id'* | *'already completing or completed'* | '') ;;
            *) fail cancel "$text" ;;
        esac
    done
}

# ---- run claims --------------------------------------------------------------------------------------------------

# Takes each key's run claim as a tombstone: "KEY 1" when it is one now, "KEY 0" when a job has it.
give_up() {
    mkdir "tmp/$nonce" || fail storage 'no folder can be made'
    part taken
    while read -r key; do
        bury
        case $owner in tombstone*) printf '%s 1\n' "$key" ;; *) printf '%s 0\n' "$key" ;; esac
    done
    rm -rf "tmp/$nonce"
}

bury() {
    owner=
    if [ ! -e "run/$key" ]; then
        mkdir "tmp/$nonce/$key" && printf 'tombstone %s\n' "$nonce" >"tmp/$nonce/$key/owner" ||
            fail storage 'no tombstone can be written'
        mv -T "tmp/$nonce/$key" "run/$key" 2>/dev/null
    fi
    [ ! -r "run/$key/owner" ] || read -r owner <"run/$key/owner"
    [ -n "$owner" ] || fail storage "run/$key cannot be read"
}

remove() {
    mkdir "tmp/$nonce" || fail storage 'no folder can be made'
    set --
    while read -r key; do
        bury
        set -- "$@" "jobs/$key" "claims/$key" "records/$key"
    done
    # Folders that a job made unreadable to itself are opened first.
    text=$(rm -rf "tmp/$nonce" "$@" 2>&1) && return
    chmod -R u+rwx "$@" 2>/dev/null
    text=$(rm -rf "tmp/$nonce" "$@" 2>&1) || fail storage "$text"
}

# ---- files -------------------------------------------------------------------------------------------------------

# Lines "KEY PATH": jobs/KEY/out becomes PATH. What an earlier attempt of the same step left there gives way.
seal() { # LIMIT
    limit=$1
    set --
    while IFS= read -r line; do
        key=${line%% *} path=${line#* }
        if [ -d "jobs/$key/out" ] && [ ! -L "jobs/$key/out" ]; then
            [ -d "${path%/*}" ] || mkdir -p "./${path%/*}" || fail storage "the parent of $path cannot be made"
            if [ -e "$path" ]; then
                mkdir -p "tmp/$nonce" && mv -T "./$path" "tmp/$nonce/$key" || fail storage "$path cannot be replaced"
            fi
            for each in stdout stderr; do # where the job made a folder of that name, the folder stays
                [ ! -s "jobs/$key/$each" ] || ln -fT "jobs/$key/$each" "jobs/$key/out/$each.txt" 2> /dev/null || :
            done
            mv -T "jobs/$key/out" "./$path" || fail storage "$path cannot be written"
        fi
        [ ! -d "$path" ] || set -- "$@" "./$path"
    done
    show_files "$limit" "$@"
    [ ! -d "tmp/$nonce" ] || rm -rf "tmp/$nonce"
}

list() { # LIMIT, paths on standard input
    limit=$1
    set --
    while IFS= read -r path; do
        [ ! -e "$path" ] || [ -L "$path" ] || set -- "$@" "./$path"
    done
    show_files "$limit" "$@"
}

show_files() { # LIMIT PATH...
    limit=$1
    shift
    part paths
    [ $# -gt 0 ] || return 0
    printf '%s\n' "$@"
    part files
    find "$@" ! -type d -printf '%y\t%s\t%T@\t%C@\t%i\t%H\n%P\0' 2>/dev/null | head -z -n "$limit"
}

tail_log() { # KEY STREAM FIRST LIMIT
    part log
    [ ! -r "jobs/$1/$2" ] || tail -c "+$3" "jobs/$1/$2" | head -c "$4"
}

remove_data() {
    set --
    while IFS= read -r path; do set -- "$@" "./$path"; done
    text=$(rm -rf -- "$@" 2>&1) || fail storage "$text"
}

unpack() { # PATH
    text=$(mkdir -p "./$1" 2>&1) || fail storage "$text"
    text=$(tar -x -f - --no-same-owner -C "./$1" 2>&1) || fail storage "$text"
}

checksums() { # PATH, names ending in NUL on standard input
    part sums
    [ ! -d "./$1" ] || { cd "./$1" && xargs -0 -r md5sum -z -- 2>/dev/null; }
}

printf 'begin %s\n' "$nonce"
cd "$base" 2>/dev/null || fail storage "$base is not there"
case $verb in
    submit | give-up | cancel | seal | remove | remove-data) fence ;;
esac
case $verb in
    submit) submit ;;
    status) status ;;
    poll) poll "$@" ;;
    changed) changed "$@" ;;
    accounting) accounting "$@" ;;
    give-up) give_up ;;
    cancel) cancel ;;
    cancel-foreign) cancel_foreign ;;
    seal) seal "$@" ;;
    list) list "$@" ;;
    remove) remove ;;
    remove-data) remove_data ;;
    tail) tail_log "$@" ;;
    unpack) unpack "$@" ;;
    checksums) checksums "$@" ;;
    fence) fence ;;
    *) fail usage "no verb $verb" ;;
esac
finish
