// Replaces what wasi-libc would import from JavaScript for files, standard input and environment variables: a page has none
// of them. What is left to JavaScript is fd_write (the logs) and proc_exit.
#include <cstdint>

extern "C" {

constexpr int32_t kSuccess = 0;
constexpr int32_t kBadFileDescriptor = 8;

int32_t __imported_wasi_snapshot_preview1_environ_sizes_get(int32_t count, int32_t bytes) {
  *reinterpret_cast<uint32_t*>(count) = 0;
  *reinterpret_cast<uint32_t*>(bytes) = 0;
  return kSuccess;
}
int32_t __imported_wasi_snapshot_preview1_environ_get(int32_t, int32_t) { return kSuccess; }

int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t) { return kBadFileDescriptor; }
int32_t __imported_wasi_snapshot_preview1_fd_fdstat_get(int32_t, int32_t) { return kBadFileDescriptor; }
int32_t __imported_wasi_snapshot_preview1_fd_read(int32_t, int32_t, int32_t, int32_t) { return kBadFileDescriptor; }
int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t, int64_t, int32_t, int32_t) { return kBadFileDescriptor; }

}  // extern "C"
