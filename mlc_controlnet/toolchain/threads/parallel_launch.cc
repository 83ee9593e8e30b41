// Kernels in parallel on the threads of one shared memory: takes the place of three functions of TVM's wasm runtime, which
// has one thread.
//
// Every thread is a JavaScript worker with its own instance of the library over the memory of the first (see
// web/src/engine/threads.ts). The first thread owns all of TVM. The others run nothing but the bodies of parallel loops,
// so only what those call must be safe: workspaces. Only this file has thread-local storage; the runtime keeps its own in
// ordinary globals, and no thread but the first touches it.
//
// wasm-ld's --wrap makes calls of NAME go to __wrap_NAME.
#include <tvm/ffi/c_api.h>
#include <tvm/runtime/c_backend_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

extern "C" void __wasm_init_tls(void* memory);  // wasm-ld's: gives an instance its thread-local storage

namespace {

// A millisecond or two. The next loop mostly begins sooner than a sleeper wakes, and two threads that were woken on one core
// must both be awake until the system moves one of them to a core that is idle. circles' ControlNet on two threads in
// Chromium, after rests of 0.3 s: 2.8 ms, with 200,000 spins 4.3, with 30,000 4.0.
constexpr int kSpins = 1500000;
constexpr int kMostThreads = 64;
constexpr size_t kCacheLine = 64;
constexpr size_t kWorkspaceAlignment = kCacheLine;
constexpr size_t kLargestArena = 4 << 20;  // bytes: a task that wants more goes to the heap

// A word that threads wait for. It has a cache line of its own: those who look at it are not disturbed by other writes.
struct alignas(kCacheLine) Signal {
  int value;
  int sleepers;
};

// The workspaces of the task that a thread runs: one after the other, and free together when none is in use. From the heap,
// under its lock, attention's small tasks took longer on two threads than on one.
struct Arena {
  char* memory;
  size_t bytes;
  size_t used;
  size_t wanted;  // by the largest task so far
  int workspaces;
};

// The generation of the job whose part was last begun.
struct alignas(kCacheLine) Claim {
  int generation;
};

struct alignas(kCacheLine) {
  FTVMParallelLambda body;
  void* data;
} job;
bool launching = false;  // written by the first thread, between launches
int thread_count = 1;
Signal generation;  // of the job; threads wait for a change
Signal running;     // parts besides the first that are not finished
Claim claims[kMostThreads];
Signal heap_lock;
int failed = 0;
thread_local Arena arena;

int Load(const int* word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

// Waking is a call into the browser, under a lock that all threads share: 10 microseconds of every launch if it is always
// made. So those who sleep say so first. Whoever has changed the value and sees no sleeper knows that no one falls asleep
// over it.
void Wake(Signal* signal) {
  if (Load(&signal->sleepers) != 0) __builtin_wasm_memory_atomic_notify(&signal->value, -1);
}

// Returns when the signal's value is no longer `value`.
void WaitWhile(Signal* signal, int value) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (Load(&signal->value) != value) return;
  }
  __atomic_fetch_add(&signal->sleepers, 1, __ATOMIC_SEQ_CST);
  while (Load(&signal->value) == value) __builtin_wasm_memory_atomic_wait32(&signal->value, value, -1);
  __atomic_fetch_sub(&signal->sleepers, 1, __ATOMIC_SEQ_CST);
}

class HeapLock {
 public:
  HeapLock() {
    while (__atomic_exchange_n(&heap_lock.value, 1, __ATOMIC_SEQ_CST) != 0) WaitWhile(&heap_lock, 1);
  }
  ~HeapLock() {
    __atomic_store_n(&heap_lock.value, 0, __ATOMIC_SEQ_CST);
    Wake(&heap_lock);
  }
};

size_t Whole(size_t bytes) { return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment; }

void* AllocateFromHeap(size_t bytes) {
  HeapLock lock;
  return aligned_alloc(kWorkspaceAlignment, bytes);
}

void FreeToHeap(void* space) {
  HeapLock lock;
  free(space);
}

// Makes the empty arena large enough for a task like the largest so far.
void Grow() {
  FreeToHeap(arena.memory);
  arena.memory = static_cast<char*>(AllocateFromHeap(arena.wanted));
  arena.bytes = arena.memory == nullptr ? 0 : arena.wanted;
}

int RunPart(int part) {
  arena.used = 0;  // also after a task that failed
  arena.workspaces = 0;
  TVMParallelGroupEnv group{};
  group.num_task = thread_count;
  return job.body(part, &group, job.data);
}

// Whether the caller is the one to run this part. A part of a job is begun once, and the next job comes after all of them.
bool Begin(int part, int job_generation) {
  int before = job_generation - 1;
  return __atomic_compare_exchange_n(&claims[part].generation, &before, job_generation, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}

void FinishPart(int status) {
  if (status != 0) __atomic_store_n(&failed, status, __ATOMIC_SEQ_CST);
  if (__atomic_sub_fetch(&running.value, 1, __ATOMIC_SEQ_CST) == 0) Wake(&running);
}

int OutOfMemory() {
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", "out of memory: a kernel got no workspace");
  return -1;
}

}  // namespace

extern "C" int __wrap_TVMBackendParallelLaunch(FTVMParallelLambda body, void* data, int /*tasks*/) {
  job.body = body;
  job.data = data;
  launching = true;
  failed = 0;
  if (thread_count > 1) {
    __atomic_store_n(&running.value, thread_count - 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&generation.value, 1, __ATOMIC_SEQ_CST);
    Wake(&generation);
  }
  int status = RunPart(0);
  // What no thread has begun by now is done here: a system may have woken a thread on this one's core, or have other work for
  // its own. Waiting for it took three times as long as one thread takes for all.
  for (int part = 1; part < thread_count; ++part) {
    if (Begin(part, generation.value)) FinishPart(RunPart(part));
  }
  for (int left = Load(&running.value); left != 0; left = Load(&running.value)) WaitWhile(&running, left);
  launching = false;
  if (status == 0) status = Load(&failed);
  return status == 0 ? 0 : OutOfMemory();
}

// Between launches a kernel's own workspaces live longer than its tasks': those are the heap's.
extern "C" void* __wrap_TVMBackendAllocWorkspace(int, int, uint64_t wanted, int, int) {
  const size_t bytes = Whole(static_cast<size_t>(wanted));
  void* space = nullptr;
  if (launching && arena.used + bytes <= kLargestArena) {
    if (arena.used + bytes > arena.wanted) arena.wanted = arena.used + bytes;
    if (arena.workspaces == 0 && arena.wanted > arena.bytes) Grow();
    if (arena.used + bytes <= arena.bytes) {
      space = arena.memory + arena.used;
      arena.used += bytes;
      ++arena.workspaces;
      return space;
    }
  }
  space = AllocateFromHeap(bytes);
  if (space == nullptr && !launching) OutOfMemory();
  return space;
}

extern "C" int __wrap_TVMBackendFreeWorkspace(int, int, void* space) {
  char* start = static_cast<char*>(space);
  if (start >= arena.memory && start < arena.memory + arena.bytes) {
    if (--arena.workspaces == 0) arena.used = 0;
  } else {
    FreeToHeap(space);
  }
  return 0;
}

// A stack for another thread; returns its lowest address, or null.
EXPORT(mlc_thread_stack) void* AllocateStack(int bytes) { return aligned_alloc(16, bytes); }

// From now on, loops run on so many threads, kMostThreads at most. Those that are not there are done without.
EXPORT(mlc_use_threads) void UseThreads(int count) { thread_count = count; }

// What another thread does: part `part` of every loop. Does not return.
EXPORT(mlc_run_thread) void RunThread(int part) {
  __wasm_init_tls(AllocateFromHeap(Whole(__builtin_wasm_tls_size())));
  for (int seen = 0;;) {
    WaitWhile(&generation, seen);
    seen = Load(&generation.value);
    if (Begin(part, seen)) FinishPart(RunPart(part));
  }
}

// Called for a thread whose part trapped: the loop ends, with an error.
EXPORT(mlc_fail_thread) void FailThread() { FinishPart(-1); }
