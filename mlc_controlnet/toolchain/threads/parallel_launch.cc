// Kernels in parallel on the threads of one shared memory: takes the place of three functions of TVM's wasm runtime, which
// has one thread.
//
// Every thread is a JavaScript worker with its own instance of the library over the memory of the first (see
// web/src/engine/threads.ts). The first thread owns all of TVM. The others run nothing but the bodies of parallel loops,
// so only what those call must be safe: workspaces, which are allocated under a lock here. No thread but the first touches
// thread-local storage, which this runtime keeps in ordinary globals.
//
// wasm-ld's --wrap makes calls of NAME go to __wrap_NAME.
#include <tvm/ffi/c_api.h>
#include <tvm/runtime/c_backend_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace {

// The next loop mostly begins sooner than a sleeper wakes. With 2000, circles takes 10.3 instead of 9.6 ms for the UNet and
// 34.3 instead of 29.8 ms for the decoder, on two threads in Chromium.
constexpr int kSpins = 200000;
constexpr size_t kWorkspaceAlignment = 64;

struct {
  FTVMParallelLambda body;
  void* data;
} job;
bool launching = false;  // the first thread's own
int thread_count = 1;
int generation = 0;  // of the job; threads wait for a change
int running = 0;     // threads besides the first that have not finished the job
int failed = 0;
int heap_lock = 0;

int Load(int* word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

void Notify(int* word, int waiters) { __builtin_wasm_memory_atomic_notify(word, waiters); }

// Returns when *word is no longer `value`.
void WaitWhile(int* word, int value) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (Load(word) != value) return;
  }
  while (Load(word) == value) __builtin_wasm_memory_atomic_wait32(word, value, -1);
}

class HeapLock {
 public:
  HeapLock() {
    while (__atomic_exchange_n(&heap_lock, 1, __ATOMIC_SEQ_CST) != 0) WaitWhile(&heap_lock, 1);
  }
  ~HeapLock() {
    __atomic_store_n(&heap_lock, 0, __ATOMIC_SEQ_CST);
    Notify(&heap_lock, 1);
  }
};

int RunPart(int part) {
  TVMParallelGroupEnv group{};
  group.num_task = thread_count;
  return job.body(part, &group, job.data);
}

void FinishPart(int status) {
  if (status != 0) __atomic_store_n(&failed, status, __ATOMIC_SEQ_CST);
  if (__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST) == 0) Notify(&running, 1);
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
    __atomic_store_n(&running, thread_count - 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
    Notify(&generation, thread_count - 1);
  }
  int status = RunPart(0);
  for (int left = Load(&running); left != 0; left = Load(&running)) WaitWhile(&running, left);
  launching = false;
  if (status == 0) status = Load(&failed);
  return status == 0 ? 0 : OutOfMemory();
}

extern "C" void* __wrap_TVMBackendAllocWorkspace(int, int, uint64_t bytes, int, int) {
  void* space = nullptr;
  {
    HeapLock lock;
    const size_t whole = (static_cast<size_t>(bytes) + kWorkspaceAlignment - 1) / kWorkspaceAlignment;
    space = aligned_alloc(kWorkspaceAlignment, whole * kWorkspaceAlignment);
  }
  if (space == nullptr && !launching) OutOfMemory();
  return space;
}

extern "C" int __wrap_TVMBackendFreeWorkspace(int, int, void* space) {
  HeapLock lock;
  free(space);
  return 0;
}

// A stack for another thread; returns its lowest address, or null.
EXPORT(mlc_thread_stack) void* AllocateStack(int bytes) { return aligned_alloc(16, bytes); }

// From now on, loops run on so many threads. All of them must have been started.
EXPORT(mlc_use_threads) void UseThreads(int count) { thread_count = count; }

// What another thread does: part `part` of every loop. Does not return.
EXPORT(mlc_run_thread) void RunThread(int part) {
  for (int seen = 0;; FinishPart(RunPart(part))) {
    WaitWhile(&generation, seen);
    seen = Load(&generation);
  }
}

// Called for a thread whose part trapped: the loop ends, with an error.
EXPORT(mlc_fail_thread) void FailThread() { FinishPart(-1); }
