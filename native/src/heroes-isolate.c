/* heroes-isolate: runs a program without privileges in namespaces of its own. See README.md beside this file.
 *
 * Three processes: this one (outside, waits), the first of the new pid namespace (mounts, drops privileges, reaps), and
 * the program. The first cannot die of a signal sent inside its namespace, so it sends the program's wait status
 * through a pipe, and this process ends as the program did. Every step fails closed: message, exit status 125. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>

#include "child.h"
#include "isolate-options.h"

#define READ_ONLY 1 /* MOUNT_ATTR_RDONLY */
/* A signal that the process outside tells of is held so long: when it reaches the first process directly too, it was
 * sent to all, and the program has it already. The telling may be late where the CPUs are busy. */
#define HOLD_MS 100
#define LATE_MS 2000

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
    execute("heroes-isolate", argv);
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
