/* What both programs do with the program that they run: start it, wait for it, pass signals, end as it ended. */
#ifndef HEROES_CHILD_H
#define HEROES_CHILD_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The signals that are waited for: the end of a child, and those that are passed on. */
static void choose_signals(sigset_t *set)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH};
    sigemptyset(set);
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++)
        sigaddset(set, numbers[index]);
}

static _Noreturn void execute(const char *us, char **argv)
{
    execvp(argv[0], argv);
    int reason = errno;
    dprintf(STDERR_FILENO, "%s: %s: %s\n", us, argv[0], reason == ENOENT ? "not found" : strerror(reason));
    _exit(reason == ENOENT ? 127 : 126);
}

/* Reaps whatever has ended. True when `program` has, with its status. */
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

/* As the program ended, so does this process; without a second core file. */
static _Noreturn void end_as(int status)
{
    if (!WIFSIGNALED(status))
        _exit(WEXITSTATUS(status));
    int number = WTERMSIG(status);
    struct rlimit none = {0, 0};
    sigset_t only;
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    signal(number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    _exit(128 + number);
}

#endif
