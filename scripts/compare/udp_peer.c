// Eight bytes to and fro over UDP, both sides polling: what the kernel's sockets allow on the same path.
//
//   udp_peer serve ADDRESS PORT
//   udp_peer ADDRESS PORT ITERATIONS      prints: 8 MICROSECONDS WRONG (median of half a round trip)
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const uint64_t kStop = ~(uint64_t)0;
static const double kPatienceUs = 20e6;

static double NowUs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

static int CompareDoubles(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

// Polls; nonzero when nothing comes for long.
static int Receive(int fd, uint64_t* word, struct sockaddr_in* from, double patience_us) {
  socklen_t length = sizeof(*from);
  const double until = NowUs() + patience_us;
  for (unsigned polls = 1;; ++polls) {
    if (recvfrom(fd, word, sizeof(*word), MSG_DONTWAIT, (struct sockaddr*)from, &length) == sizeof(*word)) return 0;
    if (polls % 1024 == 0 && NowUs() > until) return 1;
  }
}

static int Serve(int fd, struct sockaddr_in* at) {
  if (bind(fd, (struct sockaddr*)at, sizeof(*at)) != 0) return perror("udp_peer: bind"), 1;
  struct sockaddr_in from;
  uint64_t word = 0;
  for (;;) {
    if (Receive(fd, &word, &from, kPatienceUs) != 0) return 1;
    if (word == kStop) return 0;
    sendto(fd, &word, sizeof(word), 0, (struct sockaddr*)&from, sizeof(from));
  }
}

static int Measure(int fd, struct sockaddr_in* to, long iterations) {
  double* samples = calloc((size_t)iterations, sizeof(double));
  struct sockaddr_in from;
  long wrong = 0, lost = 0;
  uint64_t answer = 0;
  // The other side may not be up yet.
  const double until = NowUs() + kPatienceUs;
  uint64_t hello = 1ull << 40;
  do {
    ++hello;
    sendto(fd, &hello, sizeof(hello), 0, (struct sockaddr*)to, sizeof(*to));
  } while (Receive(fd, &answer, &from, 10000) != 0 && NowUs() < until);
  for (long i = -iterations / 10; i < iterations; ++i) {
    const uint64_t word = (uint64_t)(i + iterations);
    const double start = NowUs();
    sendto(fd, &word, sizeof(word), 0, (struct sockaddr*)to, sizeof(*to));
    do {
      if (Receive(fd, &answer, &from, kPatienceUs / 100) != 0 && ++lost > 3) return 1;
    } while (answer > 1ull << 40);
    wrong += answer != word;
    if (i >= 0) samples[i] = (NowUs() - start) / 2;
  }
  sendto(fd, &kStop, sizeof(kStop), 0, (struct sockaddr*)to, sizeof(*to));
  qsort(samples, (size_t)iterations, sizeof(double), CompareDoubles);
  printf("8 %.4f %ld\n", samples[iterations / 2], wrong);
  return 0;
}

int main(int argc, char** argv) {
  const int serves = argc > 1 && strcmp(argv[1], "serve") == 0;
  struct sockaddr_in address = {.sin_family = AF_INET};
  if (argc != 4 || inet_pton(AF_INET, argv[serves ? 2 : 1], &address.sin_addr) != 1) {
    fprintf(stderr, "usage: udp_peer serve ADDRESS PORT | udp_peer ADDRESS PORT ITERATIONS\n");
    return 2;
  }
  address.sin_port = htons((uint16_t)atoi(argv[serves ? 3 : 2]));
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) return perror("udp_peer: socket"), 1;
  return serves ? Serve(fd, &address) : Measure(fd, &address, atol(argv[3]));
}
