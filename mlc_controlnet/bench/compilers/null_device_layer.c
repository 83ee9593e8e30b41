// A layer of Vulkan for a device that is not there: what a driver without a GPU cannot do, commands and waiting for
// them, does nothing and succeeds. Dawn begins a command buffer when it opens a device, which ends the process over
// RADV_FORCE_FAMILY. With this layer the device opens, and pipelines are compiled as for the GPU.
// Structures are the loader's (Vulkan-Loader, docs/LoaderLayerInterface.md), with only the members that are read.
// They are for one instance and one device.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef void (*function)(void);
typedef function (*lookup)(void *, const char *);
typedef struct link {
  struct link *next;
  lookup of_instance, of_device;
} link;
typedef struct info {
  int32_t type;
  struct info *next;
  int32_t kind; // 0: `links` holds the layers and the driver below this layer
  link *links;
} info;
typedef struct {
  int32_t type;
  void *next;
  uint32_t version;
  lookup of_instance, of_device, of_physical_device;
} negotiation;

enum { INSTANCE = 47, DEVICE = 48 }; // values of VkStructureType
static const char *const WITHOUT_GPU[] = {
    "vkBeginCommandBuffer", "vkEndCommandBuffer", "vkResetCommandBuffer", "vkResetCommandPool",
    "vkQueueSubmit",        "vkQueueSubmit2",     "vkQueueWaitIdle",      "vkDeviceWaitIdle",
    "vkWaitForFences",      "vkGetFenceStatus",   "vkResetFences"};
static lookup below_instance, below_device;
static void *instance;

static int32_t succeed(void) { return 0; }

static link *take_link(const info *create, int32_t type) {
  for (info *one = create->next; one != NULL; one = one->next)
    if (one->type == type && one->kind == 0) {
      link *taken = one->links;
      one->links = taken->next;
      return taken;
    }
  return NULL;
}

static int32_t create_instance(const info *create, const void *allocator, void **created) {
  typedef int32_t (*next)(const info *, const void *, void **);
  below_instance = take_link(create, INSTANCE)->of_instance;
  int32_t result = ((next)below_instance(NULL, "vkCreateInstance"))(create, allocator, created);
  instance = *created;
  return result;
}

static int32_t create_device(void *physical, const info *create, const void *allocator, void **created) {
  typedef int32_t (*next)(void *, const info *, const void *, void **);
  link *below = take_link(create, DEVICE);
  below_device = below->of_device;
  return ((next)below->of_instance(instance, "vkCreateDevice"))(physical, create, allocator, created);
}

static function find_in_device(void *device, const char *name) {
  if (strncmp(name, "vkCmd", 5) == 0)
    return (function)succeed;
  for (size_t i = 0; i < sizeof WITHOUT_GPU / sizeof *WITHOUT_GPU; i++)
    if (strcmp(name, WITHOUT_GPU[i]) == 0)
      return (function)succeed;
  if (strcmp(name, "vkGetDeviceProcAddr") == 0)
    return (function)find_in_device;
  return device == NULL ? NULL : below_device(device, name);
}

static function find_in_instance(void *of, const char *name) {
  if (strcmp(name, "vkCreateInstance") == 0)
    return (function)create_instance;
  if (strcmp(name, "vkCreateDevice") == 0)
    return (function)create_device;
  if (strcmp(name, "vkGetInstanceProcAddr") == 0)
    return (function)find_in_instance;
  function own = find_in_device(NULL, name);
  return own != NULL || below_instance == NULL ? own : below_instance(of, name);
}

__attribute__((visibility("default"))) int32_t vkNegotiateLoaderLayerInterfaceVersion(negotiation *answer) {
  answer->version = 2;
  answer->of_instance = find_in_instance;
  answer->of_device = find_in_device;
  answer->of_physical_device = NULL;
  return 0;
}
