// Replaces sbrk of wasi-libc, which aborts when asked for 2 GiB or more: the argument is signed, and it takes that for a
// wish to shrink. Here it is out of memory as any other, so that the caller gets std::bad_alloc and the page lives on.
#include <cerrno>
#include <cstddef>
#include <cstdint>

// Add `increment` bytes, a multiple of wasm's page, to the end of the memory. Returns where they begin, or -1.
extern "C" void* sbrk(intptr_t increment) {
  constexpr size_t kPageBytes = 65536;
  if (increment == 0) return reinterpret_cast<void*>(__builtin_wasm_memory_size(0) * kPageBytes);
  const bool grows = increment > 0 && increment % kPageBytes == 0;
  const size_t old_pages = grows ? __builtin_wasm_memory_grow(0, increment / kPageBytes) : SIZE_MAX;
  if (old_pages == SIZE_MAX) {
    errno = ENOMEM;
    return reinterpret_cast<void*>(-1);
  }
  return reinterpret_cast<void*>(old_pages * kPageBytes);
}
