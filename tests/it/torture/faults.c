/*
 * Preloaded into a process: makes one of its calls that write, or all from one on, fail as a bad or full disk does.
 *
 * FRONTDESK_FAULT_STATE is the directory that stands on the bad disk. FRONTDESK_FAULT says how calls fail: `full` once,
 * `full-for-good`, `broken` (EIO on a write, a sync or a new name), `short` (half of a write is done), `short-full`
 * (that, and the disk is full from there on), `unsynced` (EIO on a sync). FRONTDESK_FAULT_AT is the number of the first
 * call that fails, counted over those that could fail in that way.
 *
 * After a failed sync the kernel may drop what was not synced: of files that only grow, all of the store's but the
 * index, the end that was never synced is cut off then. The call that failed is told in the file
 * FRONTDESK_FAULT_REPORT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GROWS = 1, SYNCS = 2, NAMES = 4, WRITES = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *state, *report, *kind;
static long at, counted;
/* How long files were when they were last synced. */
static struct { dev_t device; ino_t inode; off_t size; } synced[4096];
static int synced_count;

__attribute__((constructor)) static void begin(void) {
  state = getenv("FRONTDESK_FAULT_STATE");
  report = getenv("FRONTDESK_FAULT_REPORT");
  kind = getenv("FRONTDESK_FAULT");
  const char *number = getenv("FRONTDESK_FAULT_AT");
  if (!state || !report || !kind || !number) abort();
  at = atol(number);
}

static int is_kind(const char *name) { return strcmp(kind, name) == 0; }

static int is_in_state(const char *path) { return strncmp(path, state, strlen(state)) == 0; }

static const char *path_of(int fd, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
  return path;
}

static void tell(const char *call, const char *path) {
  int file = syscall(SYS_openat, AT_FDCWD, report, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  char line[PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%s %s\n", call, path);
  syscall(SYS_write, file, line, (size_t)length);
  syscall(SYS_close, file);
}

/* Whether a call that does this to a path fails: 0, an error number, or -1 for half a write. */
static int verdict(const char *call, const char *path, int does) {
  if (!is_in_state(path)) return 0;
  int can = is_kind("full") || is_kind("full-for-good") ? does & (GROWS | NAMES)
            : is_kind("broken")                         ? does & (WRITES | SYNCS | NAMES)
            : is_kind("unsynced")                       ? does & SYNCS
                                                        : does & WRITES;
  int after = is_kind("short-full") && counted >= at && does & (GROWS | NAMES);
  if (!can && !after) return 0;
  pthread_mutex_lock(&lock);
  long number = after && !can ? counted : ++counted;
  pthread_mutex_unlock(&lock);
  if (number < at || (number > at && (is_kind("full") || is_kind("broken") || is_kind("short")))) return 0;
  if (number == at) tell(call, path);
  if (is_kind("short")) return -1;
  if (is_kind("short-full")) return number == at && can ? -1 : ENOSPC;
  return is_kind("full") || is_kind("full-for-good") ? ENOSPC : EIO;
}

static int failed(int error) {
  errno = error;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  char path[PATH_MAX];
  int error = verdict("write", path_of(fd, path), GROWS | WRITES);
  if (error > 0) return failed(error);
  return syscall(SYS_write, fd, bytes, error < 0 && count > 1 ? count / 2 : count);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  char path[PATH_MAX];
  int error = verdict("writev", path_of(fd, path), GROWS | WRITES);
  if (error > 0) return failed(error);
  return error < 0 ? syscall(SYS_writev, fd, pieces, 1) : syscall(SYS_writev, fd, pieces, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  char path[PATH_MAX];
  int error = verdict("pwrite64", path_of(fd, path), GROWS | WRITES);
  if (error > 0) return failed(error);
  return syscall(SYS_pwrite64, fd, bytes, error < 0 && count > 1 ? count / 2 : count, offset);
}

int ftruncate64(int fd, off64_t length) {
  char path[PATH_MAX];
  struct stat facts;
  int grows = fstat(fd, &facts) == 0 && length > facts.st_size;
  int error = verdict("ftruncate", path_of(fd, path), grows ? GROWS | WRITES : 0);
  return error > 0 ? failed(error) : syscall(SYS_ftruncate, fd, length);
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) {
  char path[PATH_MAX];
  int error = verdict("fallocate", path_of(fd, path), GROWS);
  if (error > 0) return error;
  return syscall(SYS_fallocate, fd, 0, offset, length) == 0 ? 0 : errno;
}

/* The length at the last sync; changed where `size` is not negative. The lock is held. */
static off_t synced_size(int fd, off_t size) {
  struct stat facts;
  if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) return -1;
  int i = 0;
  while (i < synced_count && (synced[i].inode != facts.st_ino || synced[i].device != facts.st_dev)) i++;
  if (i == synced_count) {
    if (synced_count == sizeof synced / sizeof *synced) abort();
    synced[i].device = facts.st_dev;
    synced[i].inode = facts.st_ino;
    synced[i].size = 0;
    synced_count++;
  }
  if (size >= 0) synced[i].size = facts.st_size;
  return synced[i].size;
}

static int make_durable(int fd, long number, const char *call) {
  char path[PATH_MAX];
  int error = verdict(call, path_of(fd, path), SYNCS);
  int lasts = is_in_state(path) && !strstr(path, "/index");
  pthread_mutex_lock(&lock);
  int result = error ? failed(error) : (int)syscall(number, fd);
  int kept = errno;
  if (lasts) {
    off_t size = synced_size(fd, result == 0 ? 1 : -1);
    struct stat facts;
    if (result != 0 && size >= 0 && fstat(fd, &facts) == 0 && size < facts.st_size) syscall(SYS_ftruncate, fd, size);
  }
  pthread_mutex_unlock(&lock);
  errno = kept;
  return result;
}

int fsync(int fd) { return make_durable(fd, SYS_fsync, "fsync"); }

int fdatasync(int fd) { return make_durable(fd, SYS_fdatasync, "fdatasync"); }

int sync_file_range(int fd, off64_t offset, off64_t count, unsigned int flags) {
  char path[PATH_MAX];
  int error = verdict("sync_file_range", path_of(fd, path), SYNCS);
  return error > 0 ? failed(error) : syscall(SYS_sync_file_range, fd, offset, count, flags);
}

int rename(const char *old, const char *new) {
  int error = verdict("rename", new, NAMES);
  return error > 0 ? failed(error) : syscall(SYS_rename, old, new);
}

int mkdir(const char *path, mode_t mode) {
  int error = access(path, F_OK) == 0 ? 0 : verdict("mkdir", path, NAMES);
  return error > 0 ? failed(error) : syscall(SYS_mkdir, path, mode);
}

int unlink(const char *path) {
  int error = is_kind("broken") ? verdict("unlink", path, NAMES) : 0;
  return error > 0 ? failed(error) : syscall(SYS_unlink, path);
}

static int make(int directory, const char *path, int flags, mode_t mode) {
  int error = flags & O_CREAT && access(path, F_OK) != 0 ? verdict("create", path, NAMES) : 0;
  if (error > 0) return failed(error);
  int fd = syscall(SYS_openat, directory, path, flags, mode);
  /* What stands there when it is opened has been on the disk before. */
  char real[PATH_MAX];
  if (fd >= 0 && (flags & O_ACCMODE) != O_RDONLY && is_in_state(path_of(fd, real))) {
    int kept = errno;
    struct stat facts;
    pthread_mutex_lock(&lock);
    if (fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode)) {
      int known = 0;
      for (int i = 0; i < synced_count; i++) known |= synced[i].inode == facts.st_ino && synced[i].device == facts.st_dev;
      if (!known) synced_size(fd, 1);
    }
    pthread_mutex_unlock(&lock);
    errno = kept;
  }
  return fd;
}

static mode_t mode_of(int flags, va_list more) { return flags & O_CREAT ? va_arg(more, mode_t) : 0; }

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = mode_of(flags, more);
  va_end(more);
  return make(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = mode_of(flags, more);
  va_end(more);
  return make(directory, path, flags | O_LARGEFILE, mode);
}
