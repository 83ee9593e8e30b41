// Replaces tvm/support/io.h, which the apache-tvm wheel does not carry.
// A byte stream, and typed reads and writes on it through Serializer<T> (tvm/support/serializer.h).
#ifndef TVM_SUPPORT_IO_H_
#define TVM_SUPPORT_IO_H_

#include <cstddef>
#include <type_traits>

namespace tvm {
namespace support {

template <typename T, typename Enable = void>
struct Serializer;

class Stream {
 public:
  virtual ~Stream() = default;

  // Both return the number of bytes moved; fewer than `size` only at the end of the stream.
  virtual size_t Read(void* to, size_t size) = 0;
  virtual size_t Write(const void* from, size_t size) = 0;

  // False where the stream ends before a whole T.
  template <typename T>
  bool Read(T* value) {
    return Serializer<T>::Read(this, value);
  }

  template <typename T>
  void Write(const T& value) {
    Serializer<T>::Write(this, value);
  }

  // `count` values without a length prefix.
  template <typename T>
  bool ReadArray(T* values, size_t count) {
    if constexpr (std::is_arithmetic_v<T>) {
      return Read(static_cast<void*>(values), count * sizeof(T)) == count * sizeof(T);
    } else {
      for (size_t i = 0; i < count; ++i) {
        if (!Read(values + i)) return false;
      }
      return true;
    }
  }

  template <typename T>
  void WriteArray(const T* values, size_t count) {
    if constexpr (std::is_arithmetic_v<T>) {
      Write(static_cast<const void*>(values), count * sizeof(T));
    } else {
      for (size_t i = 0; i < count; ++i) Write(values[i]);
    }
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_IO_H_
