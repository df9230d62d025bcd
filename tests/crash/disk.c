/* A disk whose power can fail: what a process does to the files under DISK_FOLDER is written to DISK_JOURNAL, in the
 * order in which it happened. tests/crash/disk.py makes of it what a disk may hold after the power has gone.
 *
 * Preloaded. A call and its record happen under one lock, the call first: whoever is killed between them has not
 * returned to its caller. A sync does not reach the real disk: it takes up to DISK_SYNC_US microseconds, and has a
 * record at either end, because what others write meanwhile is not part of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 65536

struct record {
    uint32_t first, second; /* bytes of the two texts that follow */
    int32_t fd;
    uint32_t kind;
    int64_t number;  /* an offset, a length, flags, or what a sync's two records share */
    int64_t time_ns; /* CLOCK_MONOTONIC */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char watched[DESCRIPTORS];
static int journal = -1;
static char folder[4096];
static size_t folder_size;
static unsigned sync_us, chance = 1;
static int64_t syncs;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DISK_JOURNAL"), *root = getenv("DISK_FOLDER"), *us = getenv("DISK_SYNC_US");
    if (!path || !root || strlen(root) >= sizeof folder)
        return;
    strcpy(folder, root);
    folder_size = strlen(folder);
    sync_us = us ? (unsigned)atoi(us) : 0;
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
    return journal >= 0 && path && !strncmp(path, folder, folder_size) && (path[folder_size] == '/' || !path[folder_size]);
}

static int is_watched(int fd) { return journal >= 0 && fd >= 0 && fd < DESCRIPTORS && watched[fd]; }

/* Under the lock. */
static void tell(char kind, int fd, int64_t number, const void *first, size_t n, const void *second, size_t m) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record head = {(uint32_t)n, (uint32_t)m, fd, (unsigned char)kind, number,
                          now.tv_sec * 1000000000ll + now.tv_nsec};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, n}, {(void *)second, m}};
    int saved = errno;
    if (syscall(SYS_writev, journal, parts, 3) != (long)(sizeof head + n + m))
        abort(); /* a disk that forgets is of no use */
    errno = saved;
}

static int opened(int at, const char *path, int flags, unsigned mode) {
    if (!is_ours(path))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < DESCRIPTORS) {
        watched[fd] = 1;
        tell('O', fd, flags, path, strlen(path), NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                                                                                              \
    unsigned mode = 0;                                                                                                 \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, unsigned);                                                                                 \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (!is_watched(fd))
        return (int)syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    watched[fd] = 0;
    int result = (int)syscall(SYS_close, fd);
    tell('C', fd, 0, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset) {
    pthread_mutex_lock(&lock);
    ssize_t done = offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
    if (done > 0) {
        off_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset;
        ssize_t left = done;
        for (int i = 0; i < count && left; i++) {
            ssize_t n = left < (ssize_t)parts[i].iov_len ? left : (ssize_t)parts[i].iov_len;
            tell('W', fd, at, parts[i].iov_base, (size_t)n, NULL, 0);
            at += n;
            left -= n;
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t n) {
    struct iovec part = {(void *)data, n};
    return is_watched(fd) ? written(fd, &part, 1, -1) : syscall(SYS_write, fd, data, n);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_watched(fd) ? written(fd, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    struct iovec part = {(void *)data, n};
    return is_watched(fd) ? written(fd, &part, 1, offset) : syscall(SYS_pwrite64, fd, data, n, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) { return pwrite(fd, data, n, offset); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return is_watched(fd) ? written(fd, parts, count, offset) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev(fd, parts, count, offset); }
/* What Python's os.pwritev calls. None of ours passes flags. */
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return flags || !is_watched(fd) ? syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags)
                                    : written(fd, parts, count, offset);
}
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return pwritev2(fd, parts, count, offset, flags);
}

int ftruncate(int fd, off_t size) {
    if (!is_watched(fd))
        return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (!result)
        tell('T', fd, size, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int synced(int fd) {
    pthread_mutex_lock(&lock);
    int64_t token = ++syncs;
    unsigned us = sync_us ? (unsigned)rand_r(&chance) % sync_us : 0;
    tell('S', fd, token, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (us) {
        struct timespec pause = {us / 1000000, us % 1000000 * 1000l};
        syscall(SYS_nanosleep, &pause, NULL);
    }
    pthread_mutex_lock(&lock);
    tell('E', fd, token, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}
int fsync(int fd) { return is_watched(fd) ? synced(fd) : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return is_watched(fd) ? synced(fd) : (int)syscall(SYS_fdatasync, fd); }

static int renamed(int at, const char *old, int to, const char *new, unsigned flags) {
    if (!is_ours(old) && !is_ours(new))
        return (int)syscall(SYS_renameat2, at, old, to, new, flags);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_renameat2, at, old, to, new, flags);
    if (!result)
        tell('R', -1, flags, old, strlen(old), new, strlen(new));
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int at, const char *old, int to, const char *new) { return renamed(at, old, to, new, 0); }
int renameat2(int at, const char *old, int to, const char *new, unsigned flags) {
    return renamed(at, old, to, new, flags);
}

static int unlinked(int at, const char *path, int flags) {
    if (!is_ours(path))
        return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (!result)
        tell('U', -1, flags, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlinked(at, path, flags); }
int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }

static int made(int at, const char *path, mode_t mode) {
    if (!is_ours(path))
        return (int)syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_mkdirat, at, path, mode);
    if (!result)
        tell('M', -1, 0, path, strlen(path), NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made(at, path, mode); }
