/* Counts the calls that change files below one folder, and lets the k-th of them fail.
 *
 * Preloaded into a process (LD_PRELOAD); nothing happens until fault_arm() is called. A call is
 * counted before it is made, so that a kill at k leaves the disk as the k - 1 calls before left it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, HALF, NO_SPACE, IO_ERROR };
enum { WRITE, CREATE, TRUNCATE, SYNC, RENAME, REMOVE };

static char prefix[PATH_MAX];
static size_t prefix_size;
static long target, count;
static int mode, has_exchange = 1, struck = -1;

void fault_arm(const char *folder, long k, int wanted, int with_exchange) {
    snprintf(prefix, sizeof prefix, "%s", folder);
    prefix_size = strlen(prefix);
    target = k;
    count = 0;
    struck = -1;
    mode = wanted;
    has_exchange = with_exchange;
}

long fault_count(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }

/* Returns the kind of the first call that failed, or -1. */
int fault_struck(void) { return struck; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int is_below(const char *path) {
    return prefix_size && strncmp(path, prefix, prefix_size) == 0 &&
           (path[prefix_size] == '/' || path[prefix_size] == 0);
}

static int is_fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if (!prefix_size) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return is_below(path);
}

static int is_path_below(int folder, const char *path) {
    if (!prefix_size || !path) return 0;
    if (path[0] == '/') return is_below(path);
    if (folder != AT_FDCWD) return is_fd_below(folder);
    char here[PATH_MAX];
    return getcwd(here, sizeof here) && is_below(here);
}

/* Returns 1 if the call must fail, with errno set. */
static int strike(int kind) {
    if (mode == HALF) return 0;
    long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (mode == KILL && now == target) die();
    if (mode == IO_ERROR && now == target) {
        struck = kind;
        errno = EIO;
        return 1;
    }
    /* A full disk still takes what needs no new block. */
    if (mode == NO_SPACE && now >= target && kind != REMOVE && kind != TRUNCATE) {
        if (struck < 0) struck = kind;
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

/* Returns how many bytes may be written before the process dies, or `size` if it lives on. */
static size_t halve(size_t size) {
    if (mode != HALF) return size;
    return __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == target ? size / 2 : size;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define WRAP_WRITE(name, out, size, parameters, whole, half) \
    ssize_t name parameters { \
        REAL(name); \
        if (is_fd_below(out)) { \
            if (strike(WRITE)) return -1; \
            size_t part = halve(size); \
            if (part != (size_t)(size)) { \
                real half; \
                die(); \
            } \
        } \
        return real whole; \
    }

WRAP_WRITE(write, fd, n, (int fd, const void *b, size_t n), (fd, b, n), (fd, b, part))
WRAP_WRITE(pwrite, fd, n, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o),
           (fd, b, part, o))
WRAP_WRITE(pwrite64, fd, n, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o),
           (fd, b, part, o))
WRAP_WRITE(writev, fd, v[0].iov_len, (int fd, const struct iovec *v, int n), (fd, v, n),
           (fd, (struct iovec[]){{v[0].iov_base, part}}, 1))

ssize_t sendfile(int out, int in, off_t *o, size_t n);
ssize_t sendfile64(int out, int in, off64_t *o, size_t n);
WRAP_WRITE(sendfile, out, n, (int out, int in, off_t *o, size_t n), (out, in, o, n),
           (out, in, o, part))
WRAP_WRITE(sendfile64, out, n, (int out, int in, off64_t *o, size_t n), (out, in, o, n),
           (out, in, o, part))
WRAP_WRITE(copy_file_range, out, n,
           (int in, off64_t *i, int out, off64_t *o, size_t n, unsigned flags),
           (in, i, out, o, n, flags), (in, i, out, o, part, flags))

/* What is there already needs no new block. */
static int kind_of(int folder, const char *path) {
    struct stat found;
    return fstatat(folder, path, &found, 0) == 0 ? TRUNCATE : CREATE;
}

static int strike_open(int folder, const char *path, int flags) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_path_below(folder, path)) return 0;
    return strike(kind_of(folder, path));
}

static int mode_of(int flags, va_list more) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;
}

#define WRAP_OPEN(name, folder, parameters, whole) \
    int name parameters { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        int bits = mode_of(flags, more); \
        va_end(more); \
        if (strike_open(folder, path, flags)) return -1; \
        return real whole; \
    }

WRAP_OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, bits))
WRAP_OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, bits))
WRAP_OPEN(openat, at, (int at, const char *path, int flags, ...), (at, path, flags, bits))
WRAP_OPEN(openat64, at, (int at, const char *path, int flags, ...), (at, path, flags, bits))

#define WRAP(name, kind, is_ours, parameters, whole) \
    int name parameters { \
        REAL(name); \
        if ((is_ours) && strike(kind)) return -1; \
        return real whole; \
    }

WRAP(fsync, SYNC, is_fd_below(fd), (int fd), (fd))
WRAP(fdatasync, SYNC, is_fd_below(fd), (int fd), (fd))
WRAP(ftruncate, TRUNCATE, is_fd_below(fd), (int fd, off_t n), (fd, n))
WRAP(ftruncate64, TRUNCATE, is_fd_below(fd), (int fd, off64_t n), (fd, n))
WRAP(mkdir, kind_of(AT_FDCWD, path), is_path_below(AT_FDCWD, path),
     (const char *path, mode_t bits), (path, bits))
WRAP(mkdirat, kind_of(at, path), is_path_below(at, path), (int at, const char *path, mode_t bits),
     (at, path, bits))
WRAP(unlink, REMOVE, is_path_below(AT_FDCWD, path), (const char *path), (path))
WRAP(unlinkat, REMOVE, is_path_below(at, path), (int at, const char *path, int flags),
     (at, path, flags))
WRAP(rmdir, REMOVE, is_path_below(AT_FDCWD, path), (const char *path), (path))
WRAP(rename, RENAME, is_path_below(AT_FDCWD, to), (const char *from, const char *to), (from, to))
WRAP(renameat, RENAME, is_path_below(to_at, to),
     (int from_at, const char *from, int to_at, const char *to), (from_at, from, to_at, to))

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    REAL(renameat2);
    if (is_path_below(to_at, to)) {
        if (flags && !has_exchange) {
            errno = EINVAL;
            return -1;
        }
        if (strike(RENAME)) return -1;
    }
    return real(from_at, from, to_at, to, flags);
}
