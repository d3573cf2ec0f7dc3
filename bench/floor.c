/* The floor: one send() of a ready frame for each client, and nothing else.
 *
 * In: the text of a frame after "total". Prints its port; a line "COUNT MICROSECONDS" on standard input has it send so
 * many frames at that distance, and is answered with "done".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static const char WELCOME[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

int main(int count, char **values) {
  if (count < 2) return fprintf(stderr, "floor REST-OF-FRAME\n"), 2;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  struct sockaddr_in address = {.sin_family = AF_INET};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  int listening = socket(AF_INET, SOCK_STREAM, 0), yes = 1, *clients = calloc(files.rlim_max, sizeof *clients);
  bind(listening, (struct sockaddr *)&address, size);
  setsockopt(listening, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  listen(listening, 4096);
  getsockname(listening, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  char line[64], frame[8192];
  int n = 0, seq = 0, times, distance;
  struct pollfd ready[2] = {{.fd = listening, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
  for (;;) {
    poll(ready, 2, -1);
    if (ready[0].revents) {
      int fd = accept(listening, NULL, NULL);
      recv(fd, frame, sizeof frame, 0);
      send(fd, WELCOME, sizeof WELCOME - 1, MSG_NOSIGNAL);
      clients[n++] = fd;
    }
    if (!ready[1].revents) continue;
    int got = read(0, line, sizeof line - 1);
    if (got <= 0) return 0;
    line[got] = 0;
    sscanf(line, "%d %d", &times, &distance);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (times--) {
      struct timespec t;
      clock_gettime(CLOCK_MONOTONIC, &t);
      int length = snprintf(frame + 4, sizeof frame - 4,
          "{\"type\":\"board\",\"board\":\"main\",\"epoch\":\"e\",\"seq\":%d,\"at\":\"2026-11-26T12:00:00.000Z\",\"total\":%lu,%s", ++seq,
          (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec, values[1]);
      frame[0] = 0x81; frame[1] = 126; frame[2] = length >> 8; frame[3] = length;
      for (int one = 0; one < n; one++) send(clients[one], frame, length + 4, MSG_DONTWAIT | MSG_NOSIGNAL);
      next.tv_nsec += distance * 1000L;
      next.tv_sec += next.tv_nsec / 1000000000;
      next.tv_nsec %= 1000000000;
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    printf("done\n");
    fflush(stdout);
  }
}
