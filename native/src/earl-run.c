/* earl-run: runs a program and reports what its whole process tree used. See README.md beside this file.
 *
 * Two sums of CPU time are kept. The kernel's (RUSAGE_CHILDREN, with this process as subreaper of orphans) is exact for
 * every process that somebody waited for. The inherited perf event sees all others too (children of a parent that
 * ignores SIGCHLD, processes left running), but on some kernels misses the end of each process. The report takes the
 * kernel's sum, and the event's where that is larger. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/perf_event.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

#include "child.h"

#define VERSION "1.0"
/* Median error of power models that know CPU time only, six types of EC2 metal (kernel error reports of
 * kepler-model-db v0.7): 16.6 %. */
#define MODEL_UNCERTAINTY 0.17

static struct {
    const char *report;
    double idle_watts, busy_watts, node_cpus, cpus, gpus, gpu_watts, watts_uncertainty, checkpoint;
} option = {NULL, 0, 0, 0, -1, 0, 0, 0.2, 60};

static int task_clock = -1;
static struct timespec started, started_wall;
/* CPU time of children that the caller had before it became this program by exec. */
static double kernel_before;
static sigset_t passed_on;

static const char help[] =
    "Usage: earl-run [--option=VALUE]... [--] PROGRAM [ARGUMENT]...\n"
    "Run PROGRAM; report the CPU time and energy of its process tree. Never makes PROGRAM fail.\n\n"
    "  --report=FILE           write the report here, as one line of JSON\n"
    "  --idle-watts=W          power of one whole node doing nothing\n"
    "  --busy-watts=W          power of one whole node with all its CPUs busy\n"
    "  --node-cpus=N           CPUs of the node (default: those online)\n"
    "  --cpus=N                CPUs allocated, for the share of the idle power (default: those it may run on)\n"
    "  --gpus=N                GPUs allocated\n"
    "  --gpu-watts=W           power of one busy GPU\n"
    "  --watts-uncertainty=R   relative uncertainty of the watts given (default 0.2)\n"
    "  --checkpoint=S          seconds between reports while it runs (default 60, 0: none)\n"
    "  --help, --version\n";

static double seconds_since(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) * 1e-9;
}

static void read_number(const char *text, double *into, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end != text && *end == '\0' && isfinite(value) && value >= 0 && value <= most)
        *into = value;
}

static int option_value(const char *word, const char *name, const char **value)
{
    size_t length = strlen(name);
    if (strncmp(word, name, length) != 0 || word[length] != '=')
        return 0;
    *value = word + length + 1;
    return 1;
}

/* An unknown option or an unreadable number is skipped: a job must not fail for it. */
static void read_option(const char *word)
{
    const char *value;
    if (option_value(word, "--report", &value))
        option.report = value;
    else if (option_value(word, "--idle-watts", &value))
        read_number(value, &option.idle_watts, 1e6);
    else if (option_value(word, "--busy-watts", &value))
        read_number(value, &option.busy_watts, 1e6);
    else if (option_value(word, "--node-cpus", &value))
        read_number(value, &option.node_cpus, 1e6);
    else if (option_value(word, "--cpus", &value))
        read_number(value, &option.cpus, 1e6);
    else if (option_value(word, "--gpus", &value))
        read_number(value, &option.gpus, 1e4);
    else if (option_value(word, "--gpu-watts", &value))
        read_number(value, &option.gpu_watts, 1e6);
    else if (option_value(word, "--watts-uncertainty", &value))
        read_number(value, &option.watts_uncertainty, 10);
    else if (option_value(word, "--checkpoint", &value))
        read_number(value, &option.checkpoint, 1e6);
    else if (strcmp(word, "--help") == 0)
        exit(fputs(help, stdout) < 0);
    else if (strcmp(word, "--version") == 0)
        exit(puts("earl-run " VERSION) < 0);
}

static int read_options(int argc, char **argv)
{
    int index = 1;
    while (index < argc && strncmp(argv[index], "--", 2) == 0) {
        if (argv[index][2] == '\0')
            return index + 1;
        read_option(argv[index++]);
    }
    return index;
}

static void fill_defaults(void)
{
    cpu_set_t allowed;
    if (option.node_cpus < 1)
        option.node_cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (option.node_cpus < 1)
        option.node_cpus = 1;
    if (option.cpus < 0)
        option.cpus = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : option.node_cpus;
    if (option.cpus > option.node_cpus)
        option.cpus = option.node_cpus;
}

/* The event is opened here, disabled, and inherited: it starts to count at the exec of the program, in it and all its
 * descendants. Software clocks count kernel time too, in spite of exclude_kernel, which paranoid level 2 demands. */
static void open_event(void)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.disabled = attr.inherit = attr.enable_on_exec = attr.exclude_kernel = attr.exclude_hv = 1;
    task_clock = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static double event_seconds(void)
{
    unsigned long long nanoseconds;
    if (task_clock < 0 || read(task_clock, &nanoseconds, sizeof nanoseconds) != sizeof nanoseconds)
        return -1;
    return (double)nanoseconds * 1e-9;
}

static double kernel_seconds(long *max_rss_kib)
{
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    getrusage(RUSAGE_CHILDREN, &usage);
    *max_rss_kib = usage.ru_maxrss;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
         + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* One line of JSON in `text`; its length, or -1 when it does not fit. */
static int write_report(char *text, size_t room, int complete)
{
    long max_rss_kib;
    double elapsed = seconds_since(&started), kernel = kernel_seconds(&max_rss_kib) - kernel_before;
    double perf = event_seconds();
    int from_perf = perf > kernel;
    double cpu = from_perf ? perf : kernel;
    double idle = option.idle_watts * elapsed * option.cpus / option.node_cpus;
    double dynamic = fmax(option.busy_watts - option.idle_watts, 0) * cpu / option.node_cpus;
    double energy = idle + dynamic + option.gpus * option.gpu_watts * elapsed;
    int modelled = option.busy_watts > 0;
    char joules[80] = "\"energy_j\": null, \"idle_j\": null", events[160] = "\"events\": [], \"perf_cpu_s\": null";
    if (modelled)
        snprintf(joules, sizeof joules, "\"energy_j\": %.6g, \"idle_j\": %.6g", energy, idle);
    if (perf >= 0)
        snprintf(events, sizeof events, "\"events\": [\"task-clock\"], \"perf_cpu_s\": %.6f", perf);
    int length = snprintf(
        text, room,
        "{\"format\": \"heroes-energy\", \"version\": 1, \"program\": \"earl-run " VERSION "\", \"complete\": %s, %s, "
        "\"method\": \"%s\", \"uncertainty\": %.4g, \"cpu_s\": %.6f, \"cpu_source\": \"%s\", %s, \"elapsed_s\": %.6f, "
        "\"max_rss_kib\": %ld, \"idle_w\": %.6g, \"busy_w\": %.6g, \"node_cpus\": %.6g, \"cpus\": %.6g, "
        "\"gpus\": %.6g, \"gpu_w\": %.6g, \"started_at\": %lld.%03ld}\n",
        complete ? "true" : "false", joules, modelled ? "model:cpu-time" : "none",
        modelled ? hypot(MODEL_UNCERTAINTY, option.watts_uncertainty) : 0.0, cpu, from_perf ? "task-clock" : "rusage",
        events, elapsed, max_rss_kib, option.idle_watts, option.busy_watts, option.node_cpus, option.cpus,
        option.gpus, option.gpu_watts, (long long)started_wall.tv_sec, started_wall.tv_nsec / 1000000);
    return length < (int)room ? length : -1;
}

static void leave_report(int complete)
{
    char text[1024], temporary[4200];
    if (!option.report || snprintf(temporary, sizeof temporary, "%s.tmp.%d", option.report, (int)getpid()) > 4100)
        return;
    int length = write_report(text, sizeof text, complete);
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (file < 0)
        return;
    int written = length > 0 && write(file, text, (size_t)length) == length;
    if ((close(file) != 0) | !written || rename(temporary, option.report) != 0)
        unlink(temporary);
}

/* The next signal; 0 when it is time for a checkpoint, -1 when interrupted. */
static int next_signal(siginfo_t *info)
{
    double seconds = option.report ? option.checkpoint : 0;
    struct timespec limit = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    int number = seconds > 0 ? sigtimedwait(&passed_on, info, &limit) : sigwaitinfo(&passed_on, info);
    return number < 0 && errno == EAGAIN ? 0 : number;
}

/* A signal from the terminal has reached the program by itself; one from the program itself is not for it. */
static int watch(pid_t program)
{
    siginfo_t info;
    int status = 0;
    while (!reap(program, &status)) {
        int number = next_signal(&info);
        if (number == 0)
            leave_report(0);
        else if (number > 0 && number != SIGCHLD && info.si_code <= 0 && info.si_pid != program)
            kill(program, number);
    }
    return status;
}

int main(int argc, char **argv)
{
    int first = read_options(argc, argv);
    if (first >= argc)
        return fputs(help, stderr), 2;
    char **program = argv + first;
    sigset_t mask;
    struct sigaction child_default = {.sa_handler = SIG_DFL}, child_before;
    fill_defaults();
    choose_signals(&passed_on);
    open_event();
    long unused;
    kernel_before = kernel_seconds(&unused);
    clock_gettime(CLOCK_REALTIME, &started_wall);
    clock_gettime(CLOCK_MONOTONIC, &started);
    sigprocmask(SIG_BLOCK, &passed_on, &mask);
    sigaction(SIGCHLD, &child_default, &child_before);
    pid_t pid = fork();
    if (pid <= 0) {
        sigaction(SIGCHLD, &child_before, NULL);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        execute("earl-run", program);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int status = watch(pid);
    leave_report(1);
    end_as(status);
}
