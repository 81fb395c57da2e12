/*
 * Preloaded into the daemon: counts the steps by which it makes something durable or tells its peers, writes a trail of
 * them, and ends the process as kill -9 does just before one of them.
 *
 * A step is a write to the journal, a sync or a rename in the state directory, a write to a terminal, or the first send
 * to one of the peers' ports since something was heard from there. One lock is held over each step, so the trail has
 * the true order. FRONTDESK_STEPS_CONTROL names a file with the number of steps to go in ten digits; zero means for
 * ever. Where a word follows, counting begins with the first step that has it in what it is about.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of the word in the control file, filled up with zeros. */
enum { WORD_BYTES = 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int control = -1, trail = -1;
static const char *state = "", *peers = "";
/* Which descriptors have sent something and heard nothing since. */
static unsigned char has_spoken[65536];

__attribute__((constructor)) static void begin(void) {
  state = getenv("FRONTDESK_STEPS_STATE");
  peers = getenv("FRONTDESK_STEPS_PEERS");
  control = syscall(SYS_openat, AT_FDCWD, getenv("FRONTDESK_STEPS_CONTROL"), O_RDWR | O_CLOEXEC);
  trail = syscall(SYS_openat, AT_FDCWD, getenv("FRONTDESK_STEPS_TRAIL"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (!state || !peers || control < 0 || trail < 0) abort();
}

static void note(const char *word, const char *what, const char *more) {
  char line[2 * PATH_MAX + 64];
  int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", word, what, more);
  syscall(SYS_write, trail, line, (size_t)length);
}

/* Whether this is the step to die at. The lock is held. */
static int is_last(const char *what) {
  char digits[24] = "", first[WORD_BYTES + 1] = "";
  if (syscall(SYS_pread64, control, digits, 10, 0) != 10) return 0;
  if (syscall(SYS_pread64, control, first, WORD_BYTES, 10) == WORD_BYTES && *first) {
    if (!strstr(what, first)) return 0;
    syscall(SYS_pwrite64, control, (char[WORD_BYTES]){0}, WORD_BYTES, 10);
  }
  long left = atol(digits);
  if (left == 0) return 0;
  snprintf(digits, sizeof digits, "%010ld", left - 1);
  syscall(SYS_pwrite64, control, digits, 10, 0);
  return left == 1;
}

static void die(const char *word, const char *what) {
  note("died", word, what);
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static const char *path_of(int fd, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  path[length < 0 ? 0 : length] = 0;
  return path;
}

static int is_in_state(const char *path) { return strncmp(path, state, strlen(state)) == 0; }

/* "tty" with the beginning of what is said, or "peer" with its port; NULL for what is none of our business. */
static const char *listener(int fd, const void *bytes, size_t count, char what[PATH_MAX]) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) return NULL;
  if (S_ISCHR(facts.st_mode) && strncmp(path_of(fd, what), "/dev/pts/", 9) == 0) {
    if (strstr(peers, "tty") == NULL) return NULL;
    size_t shown = count < 24 ? count : 24;
    for (size_t i = 0; i < shown; i++) {
      char c = ((const char *)bytes)[i];
      what[i] = c >= ' ' && c <= '~' ? c : '.';
    }
    what[shown] = 0;
    return "tty";
  }
  if (!S_ISSOCK(facts.st_mode) || fd >= (int)sizeof has_spoken) return NULL;
  struct sockaddr_in peer;
  socklen_t length = sizeof peer;
  if (getpeername(fd, (struct sockaddr *)&peer, &length) != 0 || peer.sin_family != AF_INET) return NULL;
  snprintf(what, PATH_MAX, ":%d,", ntohs(peer.sin_port));
  return strstr(peers, what) ? "peer" : NULL;
}

static ssize_t say(int fd, const void *bytes, size_t count, long number, long a, long b, long c, long d, long e) {
  char what[PATH_MAX];
  const char *word = listener(fd, bytes, count, what);
  if (!word || (word[0] == 'p' && __atomic_exchange_n(&has_spoken[fd], 1, __ATOMIC_SEQ_CST)))
    return syscall(number, fd, a, b, c, d, e);
  pthread_mutex_lock(&lock);
  if (is_last(what)) die(word, what);
  ssize_t result = syscall(number, fd, a, b, c, d, e);
  int error = errno;
  note(word, what, "");
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  return say(fd, bytes, count, SYS_write, (long)bytes, (long)count, 0, 0, 0);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
  return say(fd, bytes, count, SYS_sendto, (long)bytes, (long)count, flags, 0, 0);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  return say(fd, "", 0, SYS_writev, (long)pieces, count, 0, 0, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  return say(fd, "", 0, SYS_sendmsg, (long)message, flags, 0, 0, 0);
}

ssize_t recv(int fd, void *buffer, size_t count, int flags) {
  ssize_t result = syscall(SYS_recvfrom, fd, buffer, count, flags, 0, 0);
  if (result > 0 && fd < (int)sizeof has_spoken) __atomic_store_n(&has_spoken[fd], 0, __ATOMIC_SEQ_CST);
  return result;
}

/* A power cut may leave half of a write. */
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  char path[PATH_MAX];
  if (!strstr(path_of(fd, path), ".journal")) return syscall(SYS_pwrite64, fd, bytes, count, offset);
  pthread_mutex_lock(&lock);
  if (is_last(path)) {
    syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
    die("write", path);
  }
  ssize_t result = syscall(SYS_pwrite64, fd, bytes, count, offset);
  int error = errno;
  note("write", path, "");
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

static int make_durable(int fd, long number) {
  char path[PATH_MAX], size[32];
  /* The index is no step: it can always be built again, and it syncs when it likes. */
  if (!is_in_state(path_of(fd, path)) || strstr(path, "/index")) return syscall(number, fd);
  pthread_mutex_lock(&lock);
  if (is_last(path)) die("sync", path);
  int result = syscall(number, fd);
  int error = errno;
  struct stat facts;
  if (result == 0 && fstat(fd, &facts) == 0) {
    snprintf(size, sizeof size, "%lld", (long long)facts.st_size);
    note("sync", path, size);
  }
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}

int fdatasync(int fd) { return make_durable(fd, SYS_fdatasync); }

int fsync(int fd) { return make_durable(fd, SYS_fsync); }

int rename(const char *old, const char *new) {
  if (!is_in_state(new) || strstr(new, "/index")) return syscall(SYS_rename, old, new);
  pthread_mutex_lock(&lock);
  if (is_last(new)) die("rename", new);
  const char *word = access(new, F_OK) == 0 ? "replace" : "rename";
  int result = syscall(SYS_rename, old, new);
  int error = errno;
  if (result == 0) note(word, old, new);
  pthread_mutex_unlock(&lock);
  errno = error;
  return result;
}
