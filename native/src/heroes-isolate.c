/* heroes-isolate: runs a program without privileges in namespaces of its own. See README.md beside this file.
 *
 * Three processes: this one (outside, waits), the first of the new pid namespace (mounts, drops privileges, reaps), and
 * the program. The first cannot die of a signal sent inside its namespace, so it sends the program's wait status
 * through a pipe, and this process ends as the program did. Every step fails closed: message, exit status 125. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VERSION "1.0"
#define FAILED 125
#define READ_ONLY 1 /* MOUNT_ATTR_RDONLY */
/* A signal that the process outside tells of is held so long: when it reaches the first process directly too, it was
 * sent to all, and the program has it already. The telling may be late where the CPUs are busy. */
#define HOLD_MS 100
#define LATE_MS 2000
/* The first places in option.binds: /tmp and /var/tmp, when --tmp is given. */
#define TEMPORARY_BINDS 2

struct bind {
    const char *from, *to;
    int read_only, fd, folder;
};

static struct {
    const char *home, *tmp, *start;
    const char **hidden;
    struct bind *binds;
    int *kept;
    size_t hidden_count, bind_count, kept_count;
    int read_only, no_network, change_user;
    uid_t uid;
    gid_t gid;
} option = {.start = "/"};

static const char *const always_hidden[] = {
    "/run/munge", "/run/slurm", "/var/spool/slurmd", "/var/spool/slurm", "/run/user", "/run/dbus",
    "/run/docker.sock", "/run/containerd", "/run/podman",
};

static const char help[] =
    "Usage: heroes-isolate [OPTION]... -- PROGRAM [ARGUMENT]...\n"
    "Run PROGRAM without privileges, in user, mount, pid and IPC namespaces of its own. Fails closed (status 125).\n\n"
    "  --home DIR          the account's home, replaced by an empty folder (default: $HOME)\n"
    "  --hide PATH         replace this folder by an empty one, this file or socket by /dev/null\n"
    "  --rw PATH           keep this file or folder of a hidden place, writable\n"
    "  --ro PATH           the same, read-only\n"
    "  --rw-at FROM TO     bind FROM at TO, writable\n"
    "  --ro-at FROM TO     the same, read-only\n"
    "  --read-only         everything else becomes read-only (Linux 5.12 or newer)\n"
    "  --tmp DIR           use DIR as /tmp and /var/tmp\n"
    "  --cd DIR            start there (default /)\n"
    "  --no-network        a network namespace with only its own loopback\n"
    "  --keep-fd N         keep this file descriptor\n"
    "  --user UID:GID      become this user (needs root, and root needs it)\n"
    "  --help, --version\n";

static _Noreturn void fail(const char *format, ...)
{
    char text[PATH_MAX + 256];
    int reason = errno;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "heroes-isolate: %s%s%s\n", text, reason ? ": " : "", reason ? strerror(reason) : "");
    _exit(FAILED);
}

static _Noreturn void misused(const char *what, const char *word)
{
    errno = 0;
    fail("%s %s (see heroes-isolate --help)", what, word);
}

/* ---- options ---- */

static const char *next_word(char ***words, const char *name)
{
    if (**words == NULL)
        misused("a value is missing after", name);
    return *(*words)++;
}

static const char *next_path(char ***words, const char *name)
{
    const char *path = next_word(words, name);
    if (path[0] != '/')
        misused("an absolute path is needed, not", path);
    return path;
}

static void read_user(const char *text)
{
    unsigned uid, gid;
    char rest;
    if (sscanf(text, "%u:%u%c", &uid, &gid, &rest) != 2 || uid == 0 || gid == 0)
        misused("--user needs UID:GID, neither of them 0, not", text);
    option.uid = uid;
    option.gid = gid;
    option.change_user = 1;
}

static int read_fd(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (*end != '\0' || end == text || number < 0 || number > 1 << 20)
        misused("--keep-fd needs a number, not", text);
    return (int)number;
}

static int read_bind(const char *word, char ***words)
{
    int at = strcmp(word, "--rw-at") == 0 || strcmp(word, "--ro-at") == 0;
    if (!at && strcmp(word, "--rw") != 0 && strcmp(word, "--ro") != 0)
        return 0;
    const char *from = next_path(words, word), *to = at ? next_path(words, word) : from;
    option.binds[option.bind_count++] = (struct bind){.from = from, .to = to, .read_only = word[3] == 'o'};
    return 1;
}

static void use_as_tmp(const char *path)
{
    option.tmp = path;
    option.binds[0] = (struct bind){.from = path, .to = "/tmp"};
    option.binds[1] = (struct bind){.from = path, .to = "/var/tmp"};
}

static int read_flag(const char *word)
{
    if (strcmp(word, "--read-only") == 0)
        return option.read_only = 1;
    if (strcmp(word, "--no-network") == 0)
        return option.no_network = 1;
    if (strcmp(word, "--help") == 0)
        exit(fputs(help, stdout) < 0);
    if (strcmp(word, "--version") == 0)
        exit(puts("heroes-isolate " VERSION) < 0);
    return 0;
}

static void read_option(const char *word, char ***words)
{
    if (read_flag(word) || read_bind(word, words))
        return;
    if (strcmp(word, "--home") == 0)
        option.home = next_path(words, word);
    else if (strcmp(word, "--hide") == 0)
        option.hidden[option.hidden_count++] = next_path(words, word);
    else if (strcmp(word, "--tmp") == 0)
        use_as_tmp(next_path(words, word));
    else if (strcmp(word, "--cd") == 0)
        option.start = next_path(words, word);
    else if (strcmp(word, "--keep-fd") == 0)
        option.kept[option.kept_count++] = read_fd(next_word(words, word));
    else if (strcmp(word, "--user") == 0)
        read_user(next_word(words, word));
    else
        misused("unknown option", word);
}

/* PROGRAM and its arguments. */
static char **read_options(int argc, char **argv)
{
    size_t most = (size_t)argc + 1;
    option.hidden = calloc(most, sizeof *option.hidden);
    option.binds = calloc(most + TEMPORARY_BINDS, sizeof *option.binds);
    option.kept = calloc(most, sizeof *option.kept);
    if (!option.hidden || !option.binds || !option.kept)
        fail("reading the options");
    option.bind_count = TEMPORARY_BINDS;
    char **words = argv + 1;
    while (*words && strcmp(*words, "--") != 0)
        read_option(next_word(&words, ""), &words);
    if (*words == NULL || words[1] == NULL)
        misused("no program after", "--");
    return words + 1;
}

static void check_options(void)
{
    if (geteuid() == 0 && !option.change_user)
        misused("root needs", "--user UID:GID");
    if (geteuid() != 0 && option.change_user)
        misused("only root may give", "--user");
    if (!option.home)
        option.home = getenv("HOME");
    if (!option.home || option.home[0] != '/')
        misused("the account's home is not known: give", "--home DIR");
    if (strspn(option.home, "/") == strlen(option.home))
        misused("this home cannot be hidden:", option.home);
}

/* ---- namespaces ---- */

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text))
        fail("mapping the user: writing %s", path);
    close(file);
}

static void enter_namespaces(void)
{
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int wanted = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | (option.no_network ? CLONE_NEWNET : 0);
    if (unshare(wanted | (option.change_user ? 0 : CLONE_NEWUSER)) != 0)
        fail("making namespaces (are user namespaces allowed here?)");
    if (option.change_user)
        return;
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    write_file("/proc/self/gid_map", map);
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &request) != 0)
        fail("starting the loopback of the network namespace");
    close(any);
}

/* ---- what is seen of the file system ---- */

static void open_binds(void)
{
    struct stat about;
    for (size_t index = 0; index < option.bind_count; index++) {
        struct bind *bind = &option.binds[index];
        if (!bind->from)
            continue;
        bind->fd = open(bind->from, O_PATH | O_CLOEXEC);
        if (bind->fd < 0 || fstat(bind->fd, &about) != 0)
            fail("binding %s", bind->from);
        bind->folder = S_ISDIR(about.st_mode);
    }
}

static void mount_empty(const char *path, const char *settings)
{
    if (access(path, F_OK) == 0 && mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, settings) != 0)
        fail("covering %s", path);
}

static void hide(const char *path)
{
    struct stat about;
    char settings[80];
    if (stat(path, &about) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return;
        fail("hiding %s", path);
    }
    if (!S_ISDIR(about.st_mode)) {
        if (mount("/dev/null", path, NULL, MS_BIND, NULL) != 0)
            fail("hiding %s", path);
        return;
    }
    snprintf(settings, sizeof settings, "mode=0755,uid=%u,gid=%u,size=64m", option.uid, option.gid);
    mount_empty(path, settings);
}

static void make_folders(const char *path, int last_too)
{
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part)
        misused("too long a path:", path);
    for (size_t end = 1; end <= length; end++) {
        if (path[end] != '/' && !(path[end] == '\0' && last_too))
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST && access(part, F_OK) != 0)
            fail("making %s", part);
    }
}

/* The home stays a folder, even where it lies in /tmp. */
static void hide_places(void)
{
    int home_exists = access(option.home, F_OK) == 0;
    for (size_t index = 0; index < sizeof always_hidden / sizeof *always_hidden; index++)
        hide(always_hidden[index]);
    mount_empty("/dev/shm", "mode=1777");
    if (!option.tmp) {
        mount_empty("/tmp", "mode=1777");
        mount_empty("/var/tmp", "mode=1777");
    }
    for (size_t index = 0; index < option.hidden_count; index++)
        hide(option.hidden[index]);
    if (home_exists)
        make_folders(option.home, 1);
    hide(option.home);
}

static void make_target(const struct bind *bind)
{
    if (access(bind->to, F_OK) == 0)
        return;
    make_folders(bind->to, bind->folder);
    if (bind->folder)
        return;
    int file = open(bind->to, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (file < 0)
        fail("making %s", bind->to);
    close(file);
}

/* A remount must repeat the flags that are set, or a user namespace may not do it. */
static unsigned long flags_of(const char *path)
{
    struct statvfs about;
    if (statvfs(path, &about) != 0)
        fail("reading the mount flags of %s", path);
    return (about.f_flag & ST_NOSUID ? MS_NOSUID : 0) | (about.f_flag & ST_NODEV ? MS_NODEV : 0)
         | (about.f_flag & ST_NOEXEC ? MS_NOEXEC : 0) | (about.f_flag & ST_NOATIME ? MS_NOATIME : 0)
         | (about.f_flag & ST_NODIRATIME ? MS_NODIRATIME : 0) | (about.f_flag & ST_RELATIME ? MS_RELATIME : 0);
}

/* With everything mounted below it, Linux 5.12 or newer; else -1 and errno. */
static int set_attributes(const char *path, unsigned long long set, unsigned long long clear)
{
    struct {
        unsigned long long set, clear, propagation, userns;
    } wanted = {set, clear, 0, 0};
#ifdef SYS_mount_setattr
    return (int)syscall(SYS_mount_setattr, -1, path, 0x8000 /* AT_RECURSIVE */, &wanted, sizeof wanted);
#else
    (void)path, (void)wanted;
    errno = ENOSYS;
    return -1;
#endif
}

static void bind_one(const struct bind *bind)
{
    char from[40];
    make_target(bind);
    snprintf(from, sizeof from, "/proc/self/fd/%d", bind->fd);
    if (mount(from, bind->to, NULL, MS_BIND | MS_REC, NULL) != 0)
        fail("binding %s at %s", bind->from, bind->to);
    if (!bind->read_only && option.read_only)
        set_attributes(bind->to, 0, READ_ONLY); /* a place that was read-only before stays so */
    if (!bind->read_only || set_attributes(bind->to, READ_ONLY, 0) == 0)
        return;
    if (mount(NULL, bind->to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags_of(bind->to), NULL) != 0)
        fail("making %s read-only", bind->to);
}

static void arrange_files(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail("making the mounts private");
    open_binds();
    if (option.read_only && set_attributes("/", READ_ONLY, 0) != 0)
        fail("making the file system read-only");
    hide_places();
    for (size_t index = 0; index < option.bind_count; index++)
        if (option.binds[index].from)
            bind_one(&option.binds[index]);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        fail("mounting /proc");
    if (chdir(option.start) != 0)
        fail("starting in %s", option.start);
}

/* ---- privileges ---- */

static void mark_each_file(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;
    if (!folder)
        fail("listing open files");
    while ((entry = readdir(folder)) != NULL)
        if (atoi(entry->d_name) > 2)
            fcntl(atoi(entry->d_name), F_SETFD, FD_CLOEXEC);
    closedir(folder);
}

/* An open folder would be a way round the mounts. All but the kept ones close at the exec of the program. */
static void mark_files(void)
{
    struct stat about;
    int done = -1;
#ifdef SYS_close_range
    done = (int)syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */);
#endif
    if (done != 0)
        mark_each_file();
    for (size_t index = 0; index < option.kept_count; index++)
        if (option.kept[index] > 2 && fcntl(option.kept[index], F_SETFD, 0) != 0)
            fail("keeping file descriptor %d", option.kept[index]);
    for (int fd = 0; fd <= 2; fd++)
        if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode))
            misused("a folder is open as", fd == 0 ? "standard input" : "standard output or error");
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
            fail("dropping capability %d", capability);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (option.change_user
        && (setgroups(0, NULL) != 0 || setresgid(option.gid, option.gid, option.gid) != 0
            || setresuid(option.uid, option.uid, option.uid) != 0))
        fail("becoming user %u:%u", option.uid, option.gid);
    if (syscall(SYS_capset, &header, none) != 0)
        fail("dropping capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        fail("forbidding new privileges");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        fail("guarding the first process");
}

/* ---- running ---- */

static _Noreturn void execute(char **argv)
{
    execvp(argv[0], argv);
    int reason = errno;
    dprintf(STDERR_FILENO, "heroes-isolate: %s: %s\n", argv[0], reason == ENOENT ? "not found" : strerror(reason));
    _exit(reason == ENOENT ? 127 : 126);
}

static void choose_signals(sigset_t *set)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH};
    sigemptyset(set);
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++)
        sigaddset(set, numbers[index]);
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* When each signal last arrived here directly, and when one told through the pipe is due; 0: not. */
struct pending {
    long direct[_NSIG], due[_NSIG];
};

static void take_direct(struct pending *pending, int signals)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        pending->direct[info.ssi_signo] = milliseconds();
        pending->due[info.ssi_signo] = 0;
    }
}

/* 0 when the process outside has gone. */
static int take_told(struct pending *pending, int orders)
{
    unsigned char number;
    ssize_t got;
    while ((got = read(orders, &number, 1)) == 1)
        if (number < _NSIG && (!pending->direct[number] || milliseconds() - pending->direct[number] > LATE_MS))
            pending->due[number] = milliseconds() + HOLD_MS;
    return got != 0;
}

static void pass_due(struct pending *pending, pid_t program)
{
    for (int number = 1; number < _NSIG; number++)
        if (pending->due[number] && pending->due[number] <= milliseconds()) {
            pending->due[number] = 0;
            kill(program, number);
        }
}

static int any_due(const struct pending *pending)
{
    for (int number = 1; number < _NSIG; number++)
        if (pending->due[number])
            return 1;
    return 0;
}

static int reap(pid_t program, int *status)
{
    int ended = 0, one;
    pid_t pid;
    while ((pid = waitpid(-1, &one, WNOHANG | __WALL)) > 0 || (pid < 0 && errno == EINTR))
        if (pid == program) {
            *status = one;
            ended = 1;
        }
    return ended;
}

/* The first process of the pid namespace: reaps orphans, passes signals, ends (and so kills all) with the program. */
static _Noreturn void be_first(pid_t program, int orders, int answers, const sigset_t *set)
{
    static struct pending pending;
    int status = 0, signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        fail("watching the program");
    struct pollfd watched[2] = {{.fd = signals, .events = POLLIN}, {.fd = orders, .events = POLLIN}};
    while (!reap(program, &status)) {
        poll(watched, 2, any_due(&pending) ? 10 : -1);
        take_direct(&pending, signals);
        if (!take_told(&pending, orders))
            _exit(FAILED);
        pass_due(&pending, program);
    }
    if (write(answers, &status, sizeof status) != sizeof status)
        _exit(FAILED);
    _exit(0);
}

/* What the caller had, given back to the program. */
static sigset_t caller_mask;
static struct sigaction caller_child;

static _Noreturn void start_inside(char **argv, int orders, int answers, const sigset_t *set)
{
    arrange_files();
    if (option.no_network)
        raise_loopback();
    syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL);
    mark_files();
    drop_capabilities();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pid_t program = fork();
    if (program < 0)
        fail("starting the program");
    if (program > 0)
        be_first(program, orders, answers, set);
    sigaction(SIGCHLD, &caller_child, NULL);
    sigprocmask(SIG_SETMASK, &caller_mask, NULL);
    execute(argv);
}

static _Noreturn void end_as(int status)
{
    if (!WIFSIGNALED(status))
        _exit(WEXITSTATUS(status));
    int number = WTERMSIG(status);
    struct rlimit none = {0, 0};
    sigset_t only;
    setrlimit(RLIMIT_CORE, &none);
    signal(number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    _exit(128 + number);
}

static _Noreturn void wait_outside(pid_t first, int orders, int answers, const sigset_t *set)
{
    siginfo_t info;
    int status = FAILED << 8, program_status;
    while (waitpid(first, &status, WNOHANG) == 0) {
        int number = sigwaitinfo(set, &info);
        unsigned char told = (unsigned char)number;
        if (number > 0 && number != SIGCHLD && write(orders, &told, 1) < 0 && errno != EAGAIN)
            continue;
    }
    if (read(answers, &program_status, sizeof program_status) == sizeof program_status)
        end_as(program_status);
    end_as(status);
}

int main(int argc, char **argv)
{
    char **program = read_options(argc, argv);
    int orders[2], answers[2];
    sigset_t set;
    struct sigaction child_default = {.sa_handler = SIG_DFL};
    check_options();
    if (!option.change_user) {
        option.uid = geteuid();
        option.gid = getegid();
    }
    choose_signals(&set);
    sigprocmask(SIG_BLOCK, &set, &caller_mask);
    sigaction(SIGCHLD, &child_default, &caller_child);
    if (pipe2(orders, O_CLOEXEC | O_NONBLOCK) != 0 || pipe2(answers, O_CLOEXEC | O_NONBLOCK) != 0)
        fail("making pipes");
    enter_namespaces();
    pid_t first = fork();
    if (first < 0)
        fail("starting the first process");
    if (first == 0) {
        close(orders[1]);
        close(answers[0]);
        start_inside(program, orders[0], answers[1], &set);
    }
    close(orders[0]);
    close(answers[1]);
    wait_outside(first, orders[1], answers[0], &set);
}
