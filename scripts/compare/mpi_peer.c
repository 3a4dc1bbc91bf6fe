// An MPI library's side of scripts/compare_peers: the same operations, sizes and way of timing as ours.
//
//   mpi_peer allreduce SIZE:ITERATIONS ...   mean time of an allreduce of floats, mean over ranks
//   mpi_peer put SIZE:ITERATIONS ...         median time of MPI_Put and MPI_Win_flush, rank 0 to rank 1
//
// Rank 0 prints a line for each size: bytes, microseconds, wrong elements (or bytes).
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int rank, ranks;

static double NowUs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

static void* Memory(size_t bytes) {
  void* memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (memory == NULL) {
    fprintf(stderr, "mpi_peer: no memory for %zu bytes\n", bytes);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  memset(memory, 0, bytes);
  return memory;
}

static int CompareDoubles(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void AllReduce(size_t bytes, long iterations) {
  const size_t count = bytes / sizeof(float);
  float* from = Memory(bytes);
  float* to = Memory(bytes);
  for (size_t i = 0; i < count; ++i) from[i] = (float)((i + i / 1024 + (size_t)rank) % 7);
  const long warmup = iterations < 10 ? 1 : iterations / 10;
  for (long i = 0; i < warmup; ++i) {
    MPI_Allreduce(from, to, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = NowUs();
  for (long i = 0; i < iterations; ++i) {
    MPI_Allreduce(from, to, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  }
  double mine = (NowUs() - start) / (double)iterations, sum = 0;
  long wrong = 0, wrong_all = 0;
  for (size_t i = 0; i < count; ++i) {
    float expected = 0;
    for (int r = 0; r < ranks; ++r) expected += (float)((i + i / 1024 + (size_t)r) % 7);
    wrong += to[i] != expected;
  }
  MPI_Reduce(&mine, &sum, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Reduce(&wrong, &wrong_all, 1, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
  if (rank == 0) printf("%zu %.4f %ld\n", bytes, sum / ranks, wrong_all);
  free(from);
  free(to);
}

static void Put(size_t bytes, long iterations) {
  unsigned char* window_memory;
  MPI_Win window;
  // Not less than a page: MPICH 4.0.2 loses the bytes of an 8-byte window between two ranks of a host.
  MPI_Win_allocate((MPI_Aint)(bytes < 4096 ? 4096 : bytes), 1, MPI_INFO_NULL, MPI_COMM_WORLD, &window_memory, &window);
  memset(window_memory, 0, bytes);
  unsigned char* from = Memory(bytes);
  double* samples = Memory((size_t)iterations * sizeof(double));
  for (size_t i = 0; i < bytes; ++i) from[i] = (unsigned char)(i * 31 + i / 256 + 5);
  MPI_Win_lock_all(0, window);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) {
    for (long i = -iterations / 10; i < iterations; ++i) {
      const double start = NowUs();
      MPI_Put(from, (int)bytes, MPI_BYTE, 1, 0, (int)bytes, MPI_BYTE, window);
      MPI_Win_flush(1, window);
      if (i >= 0) samples[i] = NowUs() - start;
    }
  }
  MPI_Barrier(MPI_COMM_WORLD);  // where the target waits, and makes progress
  long wrong = 0;
  if (rank == 1) {
    MPI_Win_sync(window);
    for (size_t i = 0; i < bytes; ++i) wrong += window_memory[i] != (unsigned char)(i * 31 + i / 256 + 5);
  }
  MPI_Bcast(&wrong, 1, MPI_LONG, 1, MPI_COMM_WORLD);
  MPI_Win_unlock_all(window);
  if (rank == 0) {
    qsort(samples, (size_t)iterations, sizeof(double), CompareDoubles);
    printf("%zu %.4f %ld\n", bytes, samples[iterations / 2], wrong);
  }
  MPI_Win_free(&window);
  free(from);
  free(samples);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int is_put = argc > 1 && strcmp(argv[1], "put") == 0;
  if (argc < 3 || (!is_put && strcmp(argv[1], "allreduce") != 0) || (is_put && ranks != 2)) {
    fprintf(stderr, "usage: mpi_peer allreduce|put SIZE:ITERATIONS ...; put with two ranks\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  for (int i = 2; i < argc; ++i) {
    char* rest;
    const size_t bytes = strtoull(argv[i], &rest, 10);
    const long iterations = *rest == ':' ? atol(rest + 1) : 0;
    if (bytes == 0 || bytes > (1u << 30) || iterations < 1) {
      fprintf(stderr, "mpi_peer: '%s' is not SIZE:ITERATIONS\n", argv[i]);
      MPI_Abort(MPI_COMM_WORLD, 2);
    }
    if (is_put) {
      Put(bytes, iterations);
    } else {
      AllReduce(bytes, iterations);
    }
  }
  MPI_Finalize();
  return 0;
}
