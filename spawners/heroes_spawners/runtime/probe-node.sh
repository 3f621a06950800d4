# The canary's program, after lines that set `runtime` and define `by_program`, `by_unshare` and `look_for_programs`.
# Prints what a compute node can do, a name and a value on each line.
LC_ALL=C
export LC_ALL
say() { printf '%s %s\n' "$1" "$2"; }

say clock "$(date +%s)"
say arch "$(uname -m)"
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
say glibc "${libc##* }"
while read -r first second rest; do
    case "$first $second" in 'model name'*)
        say cpu_model "${rest#: }"
        break
        ;;
    esac
done </proc/cpuinfo
say cpus "$(nproc)"
for program in earl-run heroes-isolate; do
    "$runtime/$program" --version >/dev/null 2>&1 && say program "$program"
done
hidden='test ! -e "$1"'
if by_program /bin/sh -c "$hidden" sh "$runtime/job.sh" >/dev/null 2>&1; then
    say isolation heroes-isolate
elif by_unshare /bin/sh -c "$hidden" sh "$runtime/job.sh" >/dev/null 2>&1; then
    say isolation unshare
else
    say isolation none
fi
unshare --user --map-root-user --net true >/dev/null 2>&1 && say offline 1
asks='import sys, venv; print("%d.%d" % sys.version_info[:2], sys.base_prefix)'
for python in /usr/bin/python3 /usr/local/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 \
    "$(command -v python3)"; do
    [ -x "$python" ] || continue
    answer=$("$python" -I -c "$asks" 2>/dev/null) || continue
    case $answer in 3.1[1-9]' '* | 3.[2-9][0-9]' '*)
        say python "$python"
        say python_version "${answer%% *}"
        say python_prefix "${answer#* }"
        break
        ;;
    esac
done
if command -v nvidia-smi >/dev/null 2>&1; then
    set -- $(nvidia-smi -L 2>/dev/null | wc -l)
    say gpus "$1"
fi
if command -v eacct >/dev/null 2>&1 || [ -n "${EAR_INSTALL_PATH:-}" ]; then say ear 1; fi
look_for_programs
# What reached the job beside the scheduler's own variables.
env | while IFS='=' read -r name rest; do
    case $name in
        SLURM* | PATH | HOME | USER | LOGNAME | LC_ALL | TZ | PWD | OLDPWD | SHLVL | _ | TMPDIR | HOSTNAME | ENVIRONMENT | SHELL) ;;
        CUDA_VISIBLE_DEVICES | GPU_DEVICE_ORDINAL | ROCR_VISIBLE_DEVICES | SBATCH* | MPI* | PMI* | KRB5CCNAME) ;;
        *) say variable "$name" ;;
    esac
done
say end here
