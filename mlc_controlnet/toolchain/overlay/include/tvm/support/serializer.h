// Replaces tvm/support/serializer.h, which the apache-tvm wheel does not carry.
// How TVM lays values out in a library: numbers and enums little endian, containers and strings behind a uint64 count.
// The compiler in the wheel writes these bytes; wasm is little endian too, so nothing is swapped.
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/endian.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(TVM_FFI_IO_NO_ENDIAN_SWAP, "this runtime is little endian");

// The count before a container; false where the stream ends or the count cannot be a size_t of this machine.
inline bool ReadCount(Stream* stream, size_t* count) {
  uint64_t stored;
  if (stream->Read(&stored, sizeof(stored)) != sizeof(stored)) return false;
  if (stored > std::numeric_limits<size_t>::max()) return false;
  *count = static_cast<size_t>(stored);
  return true;
}

inline void WriteCount(Stream* stream, size_t count) {
  const uint64_t stored = count;
  stream->Write(&stored, sizeof(stored));
}

template <typename T>
struct Serializer<T, std::enable_if_t<std::is_arithmetic_v<T> || std::is_enum_v<T>>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, T* value) { return stream->Read(static_cast<void*>(value), sizeof(T)) == sizeof(T); }
  static void Write(Stream* stream, const T& value) { stream->Write(static_cast<const void*>(&value), sizeof(T)); }
};

template <>
struct Serializer<DLDataType> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, DLDataType* type) {
    return stream->Read(&type->code) && stream->Read(&type->bits) && stream->Read(&type->lanes);
  }
  static void Write(Stream* stream, const DLDataType& type) {
    stream->Write(type.code);
    stream->Write(type.bits);
    stream->Write(type.lanes);
  }
};

template <>
struct Serializer<DLDevice> {
  static constexpr bool enabled = true;
  static_assert(sizeof(DLDeviceType) == sizeof(int32_t), "a device type is stored in four bytes");

  static bool Read(Stream* stream, DLDevice* device) {
    return stream->Read(&device->device_type) && stream->Read(&device->device_id);
  }
  static void Write(Stream* stream, const DLDevice& device) {
    stream->Write(device.device_type);
    stream->Write(device.device_id);
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, std::string* text) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    text->resize(count);
    return stream->ReadArray(text->data(), count);
  }
  static void Write(Stream* stream, const std::string& text) {
    WriteCount(stream, text.size());
    stream->WriteArray(text.data(), text.size());
  }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, ffi::String* text) {
    std::string read;
    if (!stream->Read(&read)) return false;
    *text = ffi::String(std::move(read));
    return true;
  }
  static void Write(Stream* stream, const ffi::String& text) {
    WriteCount(stream, text.size());
    stream->WriteArray(text.data(), text.size());
  }
};

template <typename A, typename B>
struct Serializer<std::pair<A, B>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, std::pair<A, B>* pair) {
    return stream->Read(&pair->first) && stream->Read(&pair->second);
  }
  static void Write(Stream* stream, const std::pair<A, B>& pair) {
    stream->Write(pair.first);
    stream->Write(pair.second);
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, std::vector<T>* values) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    values->resize(count);
    return stream->ReadArray(values->data(), count);
  }
  static void Write(Stream* stream, const std::vector<T>& values) {
    WriteCount(stream, values.size());
    stream->WriteArray(values.data(), values.size());
  }
};

template <typename K, typename V>
struct Serializer<std::unordered_map<K, V>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, std::unordered_map<K, V>* map) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    map->clear();
    for (size_t i = 0; i < count; ++i) {
      std::pair<K, V> entry;
      if (!stream->Read(&entry)) return false;
      map->insert(std::move(entry));
    }
    return true;
  }
  static void Write(Stream* stream, const std::unordered_map<K, V>& map) {
    WriteCount(stream, map.size());
    for (const auto& [key, value] : map) {
      stream->Write(key);
      stream->Write(value);
    }
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, ffi::Array<T>* values) {
    std::vector<T> read;
    if (!stream->Read(&read)) return false;
    *values = ffi::Array<T>(read.begin(), read.end());
    return true;
  }
  static void Write(Stream* stream, const ffi::Array<T>& values) {
    WriteCount(stream, values.size());
    for (const T& value : values) stream->Write(value);
  }
};

template <typename K, typename V>
struct Serializer<ffi::Map<K, V>> {
  static constexpr bool enabled = true;

  static bool Read(Stream* stream, ffi::Map<K, V>* map) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    ffi::Map<K, V> read;
    for (size_t i = 0; i < count; ++i) {
      K key;
      V value;
      if (!stream->Read(&key) || !stream->Read(&value)) return false;
      read.Set(std::move(key), std::move(value));
    }
    *map = std::move(read);
    return true;
  }
  static void Write(Stream* stream, const ffi::Map<K, V>& map) {
    WriteCount(stream, map.size());
    for (const auto& [key, value] : map) {
      stream->Write(key);
      stream->Write(value);
    }
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_H_
