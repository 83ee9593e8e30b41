// Replaces src/support/utils.h, which the apache-tvm wheel does not carry.
// Its one reader here, tensor_cache_support.cc, includes it and uses nothing of it.
