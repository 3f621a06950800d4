/* The command line of heroes-isolate, and its way of failing. */
#ifndef HEROES_ISOLATE_OPTIONS_H
#define HEROES_ISOLATE_OPTIONS_H

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define VERSION "1.0"
#define FAILED 125
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

#endif
