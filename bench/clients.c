/* Many watching clients in one process: WebSockets that read as fast as they can and count.
 *
 * In: the port, the path, how many, and (for latency.py) a file of moments. Prints "connected" once all are in;
 * each line on standard input is answered with what was seen since the one before, as one line of JSON; the end of
 * standard input is the end. It speaks as much WebSocket as a server that never fragments needs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { OPENING = 100, SEQS = 1 << 16, MOMENTS = 1 << 20, BUCKETS = 64 * 32, LARGEST = 1 << 16 };

typedef struct {
  int fd, shaken, held;
  char *rest;          /* what has come of a frame that is not whole */
  uint64_t score;      /* of the first line, when last seen */
} Client;

typedef struct { uint32_t seq, count; uint64_t at, first, last; } Seen;

static Client *clients;
static Seen seen[SEQS];
static uint64_t frames, bytes, *moments, latencies[BUCKETS], worst;
static int wanted, opened, shaken, loop;
static struct sockaddr_in server;
static char request[512];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void die(const char *what) { perror(what); exit(1); }

/* Latencies in buckets of 3 per cent: the exponent, and five bits of what follows. */
static int bucket_of(uint64_t us) {
  if (us < 32) return us;
  int high = 63 - __builtin_clzll(us);
  return high * 32 + ((us >> (high - 5)) & 31);
}

static uint64_t number_after(const char *text, int size, const char *mark) {
  const char *found = memmem(text, size, mark, strlen(mark));
  return found ? strtoull(found + strlen(mark), NULL, 10) : 0;
}

static void frame(Client *client, const char *text, int size, uint64_t at) {
  if (size < 20 || memcmp(text, "{\"type\":\"board\"", 15)) return;
  frames++;
  bytes += size;
  if (moments) {
    uint64_t score = number_after(text, size, "\"score\":");
    for (uint64_t k = client->score + 1; client->score && k <= score && k < MOMENTS; k++) {
      uint64_t us = (at - moments[k]) / 1000;
      latencies[bucket_of(us)]++;
      if (us > worst) worst = us;
    }
    client->score = score;
    return;
  }
  uint32_t seq = number_after(text, size, "\"seq\":");
  Seen *one = &seen[seq % SEQS];
  if (one->seq != seq) *one = (Seen){.seq = seq, .at = number_after(text, size, "\"total\":"), .first = at};
  one->count++;
  one->last = at;
}

/* Take whole frames off the data; how much that was. */
static int take(Client *client, char *data, int size, uint64_t at) {
  int done = 0;
  if (!client->shaken) {
    char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(data + 9, "101", 3)) { fprintf(stderr, "refused: %.60s\n", data); exit(1); }
    client->shaken = 1;
    shaken++;
    done = end + 4 - data;
  }
  while (size - done >= 2) {
    int head = 2, length = data[done + 1] & 0x7f;
    if (length == 126) {
      if (size - done < 4) break;
      head = 4;
      length = (uint8_t)data[done + 2] << 8 | (uint8_t)data[done + 3];
    }
    if (size - done < head + length) break;
    if ((data[done] & 15) == 1) frame(client, data + done + head, length, at);
    done += head + length;
  }
  return done;
}

static void receive(Client *client) {
  static char buffer[2 * LARGEST];
  if (client->held) memcpy(buffer, client->rest, client->held);
  int got = recv(client->fd, buffer + client->held, LARGEST, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { fprintf(stderr, "a connection ended\n"); exit(1); }
  int size = client->held + got, done = take(client, buffer, size, now());
  client->held = size - done;
  if (client->held) {
    client->rest = realloc(client->rest, client->held);
    memcpy(client->rest, buffer + done, client->held);
  }
}

static void open_one(void) {
  Client *client = &clients[opened++];
  client->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (client->fd < 0) die("socket (raise the limit: ulimit -n)");
  if (connect(client->fd, (struct sockaddr *)&server, sizeof server)) die("connect");
  if (send(client->fd, request, strlen(request), 0) < 0) die("send");
  fcntl(client->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
  if (epoll_ctl(loop, EPOLL_CTL_ADD, client->fd, &event)) die("epoll_ctl");
}

static void tell(void) {
  printf("{\"frames\":%lu,\"bytes\":%lu,\"worst\":%lu,\"latencies\":{", frames, bytes, worst);
  const char *comma = "";
  for (int n = 0; n < BUCKETS; n++) {
    if (!latencies[n]) continue;
    uint64_t us = n < 32 ? n : (uint64_t)(32 + n % 32) << (n / 32 - 5);
    printf("%s\"%lu\":%lu", comma, us, latencies[n]);
    comma = ",";
  }
  printf("},\"seqs\":[");
  comma = "";
  for (int n = 0; n < SEQS; n++) {
    if (!seen[n].count) continue;
    printf("%s[%u,%u,%lu,%lu]", comma, seen[n].seq, seen[n].count, (seen[n].last - seen[n].at) / 1000,
           (seen[n].last - seen[n].first) / 1000);
    comma = ",";
  }
  printf("]}\n");
  fflush(stdout);
  memset(seen, 0, sizeof seen);
  memset(latencies, 0, sizeof latencies);
  frames = bytes = worst = 0;
}

int main(int count, char **values) {
  if (count < 4) return fprintf(stderr, "clients PORT PATH COUNT [MOMENTS]\n"), 2;
  wanted = atoi(values[3]);
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(values[1]))};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  snprintf(request, sizeof request,
           "GET %s HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", values[2]);
  if (count > 4) {
    int file = open(values[4], O_RDONLY);
    moments = mmap(NULL, MOMENTS * sizeof *moments, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || moments == MAP_FAILED) die(values[4]);
  }
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  clients = calloc(wanted, sizeof *clients);
  loop = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
  epoll_ctl(loop, EPOLL_CTL_ADD, 0, &event);
  int told = 0;
  for (;;) {
    while (opened < wanted && opened - shaken < OPENING) open_one();
    if (!told && shaken == wanted) { told = 1; printf("connected\n"); fflush(stdout); }
    int ready = epoll_wait(loop, events, 512, -1);
    for (int n = 0; n < ready; n++) {
      if (events[n].data.ptr) { receive(events[n].data.ptr); continue; }
      char line[64];
      if (read(0, line, sizeof line) <= 0) return 0;
      tell();
    }
  }
}
