"""Compiles SPIR-V with Mesa's RADV for an AMD chip that is not there, in a process of its own.

    RADV_FORCE_FAMILY=navi31 VK_DRIVER_FILES=.../radeon_icd.json python radv_process.py < jobs > results

A line of stdin is a job {"name", "code": path of SPIR-V, "entry", "bindings": [[set, binding, "uniform" or
"storage"]]}; stdout gets a line for the device {"device", "mesa": [25, 0, 7]}, then a line for each job as soon as it
is done: {"name", "wave": threads of a wave, "statistics": {...}, "assembly"}, or {"name", "error"}. A shader that
crashes the driver ends the process. Needs libvulkan, but no package. Structures are Vulkan's
(registry.khronos.org/vulkan), with only the members that are set.
"""

import ctypes
import json
import sys
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

# Values of VkStructureType.
APPLICATION, INSTANCE, DEVICE_QUEUE, DEVICE, MODULE = 0, 1, 2, 3, 16
STAGE, COMPUTE_PIPELINE, PIPELINE_LAYOUT, SET_LAYOUT = 18, 29, 30, 32
EXECUTABLE_FEATURES, PIPELINE, PROPERTIES, EXECUTABLE, STATISTIC, REPRESENTATION = range(1000269000, 1000269006)
UNIFORM_BUFFER, STORAGE_BUFFER, COMPUTE = 6, 7, 0x20
CAPTURE_STATISTICS, CAPTURE_REPRESENTATIONS = 0x40, 0x80
PUSH_CONSTANT_BYTES = 128
API_1_3 = (1 << 22) | (3 << 12)
EXTENSION = b"VK_KHR_pipeline_executable_properties"


def _structure(name: str, *fields: tuple[str, Any]) -> Any:
    return type(name, (Structure,), {"_fields_": [("sType", c_int32), ("pNext", c_void_p), *fields]})


ApplicationInfo = _structure(
    "ApplicationInfo",
    ("name", c_char_p),
    ("version", c_uint32),
    ("engine", c_char_p),
    ("engine_version", c_uint32),
    ("api", c_uint32),
)
InstanceInfo = _structure(
    "InstanceInfo",
    ("flags", c_uint32),
    ("application", c_void_p),
    ("layers", c_uint32),
    ("layer_names", c_void_p),
    ("extensions", c_uint32),
    ("extension_names", c_void_p),
)
QueueInfo = _structure(
    "QueueInfo", ("flags", c_uint32), ("family", c_uint32), ("count", c_uint32), ("priorities", c_void_p)
)
DeviceInfo = _structure(
    "DeviceInfo",
    ("flags", c_uint32),
    ("queues", c_uint32),
    ("queue_infos", c_void_p),
    ("layers", c_uint32),
    ("layer_names", c_void_p),
    ("extensions", c_uint32),
    ("extension_names", c_void_p),
    ("features", c_void_p),
)
ExecutableFeatures = _structure("ExecutableFeatures", ("info", c_uint32))
ModuleInfo = _structure("ModuleInfo", ("flags", c_uint32), ("bytes", c_size_t), ("code", c_void_p))
StageInfo = _structure(
    "StageInfo",
    ("flags", c_uint32),
    ("stage", c_uint32),
    ("module", c_uint64),
    ("entry", c_char_p),
    ("specialization", c_void_p),
)
PipelineInfo = _structure(
    "PipelineInfo",
    ("flags", c_uint32),
    ("stage", StageInfo),
    ("layout", c_uint64),
    ("base", c_uint64),
    ("base_index", c_int32),
)
SetLayoutInfo = _structure("SetLayoutInfo", ("flags", c_uint32), ("count", c_uint32), ("bindings", c_void_p))
LayoutInfo = _structure(
    "LayoutInfo",
    ("flags", c_uint32),
    ("sets", c_uint32),
    ("set_layouts", c_void_p),
    ("ranges", c_uint32),
    ("range_list", c_void_p),
)
OfPipeline = _structure("OfPipeline", ("pipeline", c_uint64))
Properties = _structure(
    "Properties", ("stages", c_uint32), ("name", c_char * 256), ("description", c_char * 256), ("subgroup", c_uint32)
)
ExecutableInfo = _structure("ExecutableInfo", ("pipeline", c_uint64), ("index", c_uint32))
Statistic = _structure(
    "Statistic", ("name", c_char * 256), ("description", c_char * 256), ("format", c_int32), ("value", c_uint64)
)
Representation = _structure(
    "Representation",
    ("name", c_char * 256),
    ("description", c_char * 256),
    ("is_text", c_uint32),
    ("bytes", c_size_t),
    ("data", c_void_p),
)


class Binding(Structure):
    """VkDescriptorSetLayoutBinding."""

    _fields_ = (
        ("binding", c_uint32),
        ("kind", c_int32),
        ("count", c_uint32),
        ("stages", c_uint32),
        ("samplers", c_void_p),
    )


class PushConstantRange(Structure):
    """VkPushConstantRange."""

    _fields_ = (("stages", c_uint32), ("offset", c_uint32), ("bytes", c_uint32))


class Compiler:
    """A device of a chip that is not there."""

    def __init__(self) -> None:
        self.vulkan = ctypes.CDLL("libvulkan.so.1")
        application = ApplicationInfo(sType=APPLICATION, api=API_1_3)
        info = InstanceInfo(sType=INSTANCE, application=ctypes.addressof(application))
        self.instance = c_void_p()
        self.call("vkCreateInstance", byref(info), None, byref(self.instance))
        physical, count = c_void_p(), c_uint32(1)
        self.vulkan.vkEnumeratePhysicalDevices(self.instance, byref(count), byref(physical))
        if not physical:
            raise RuntimeError("RADV offers no device")
        properties = (c_uint32 * 1024)()  # VkPhysicalDeviceProperties: api, driver, vendor, device, type, name, ...
        self.vulkan.vkGetPhysicalDeviceProperties(physical, byref(properties))
        self.mesa = (properties[1] >> 22, properties[1] >> 12 & 0x3FF, properties[1] & 0xFFF)
        self.name = bytes(properties)[20:276].split(b"\0")[0].decode()
        features = ExecutableFeatures(sType=EXECUTABLE_FEATURES, info=1)
        priority = c_float(1)
        queue = QueueInfo(sType=DEVICE_QUEUE, count=1, priorities=ctypes.addressof(priority))
        extensions = (c_char_p * 1)(EXTENSION)
        create = DeviceInfo(
            sType=DEVICE,
            pNext=ctypes.addressof(features),
            queues=1,
            queue_infos=ctypes.addressof(queue),
            extensions=1,
            extension_names=ctypes.addressof(extensions),
        )
        self.device = c_void_p()
        self.call("vkCreateDevice", physical, byref(create), None, byref(self.device))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of Vulkan. Raises RuntimeError if it fails."""
        if (code := getattr(self.vulkan, name)(*arguments)) != 0:
            raise RuntimeError(f"{name} returned {code}")

    def create(self, what: str, info: Structure) -> int:
        """Create an object of the device; return its handle."""
        handle = c_uint64()
        self.call(f"vkCreate{what}", self.device, byref(info), None, byref(handle))
        return handle.value

    def compile(self, code: bytes, entry: str, bindings: Sequence[tuple[int, int, str]]) -> dict[str, Any]:
        """Make a pipeline of SPIR-V; return the driver's statistics and the chip's assembly."""
        text = ctypes.create_string_buffer(code, len(code))
        module = self.create("ShaderModule", ModuleInfo(MODULE, None, 0, len(code), ctypes.addressof(text)))
        layout = self._layout(bindings)
        stage = StageInfo(STAGE, None, 0, COMPUTE, module, entry.encode(), None)
        flags = CAPTURE_STATISTICS | CAPTURE_REPRESENTATIONS
        info = PipelineInfo(COMPUTE_PIPELINE, None, flags, stage, layout, 0, -1)
        pipeline = c_uint64()
        self.call("vkCreateComputePipelines", self.device, c_uint64(0), 1, byref(info), None, byref(pipeline))
        of, executable = OfPipeline(PIPELINE, None, pipeline.value), ExecutableInfo(EXECUTABLE, None, pipeline.value, 0)
        (properties,) = self._enumerate("vkGetPipelineExecutablePropertiesKHR", Properties, PROPERTIES, of)
        found = self._enumerate("vkGetPipelineExecutableStatisticsKHR", Statistic, STATISTIC, executable)
        statistics = {one.name.decode(): one.value for one in found}
        assembly = self._representations(executable)["Assembly"]
        self.vulkan.vkDestroyPipeline(self.device, pipeline, None)
        return {"wave": properties.subgroup, "statistics": statistics, "assembly": assembly}

    def _layout(self, bindings: Sequence[tuple[int, int, str]]) -> int:
        sets = (c_uint64 * (1 + max((of_set for of_set, _, _ in bindings), default=0)))()
        for number in range(len(sets)):
            kinds = {"uniform": UNIFORM_BUFFER, "storage": STORAGE_BUFFER}
            slots = [Binding(slot, kinds[kind], 1, COMPUTE, None) for of, slot, kind in bindings if of == number]
            array = (Binding * len(slots))(*slots)
            sets[number] = self.create(
                "DescriptorSetLayout", SetLayoutInfo(SET_LAYOUT, None, 0, len(slots), ctypes.addressof(array))
            )
        push = PushConstantRange(COMPUTE, 0, PUSH_CONSTANT_BYTES)
        addresses = ctypes.addressof(sets), ctypes.addressof(push)
        return self.create(
            "PipelineLayout", LayoutInfo(PIPELINE_LAYOUT, None, 0, len(sets), addresses[0], 1, addresses[1])
        )

    def _enumerate(self, name: str, kind: Any, number: int, executable: Structure, into: Any = None) -> Any:
        address = self.vulkan.vkGetDeviceProcAddr
        address.restype = c_void_p
        prototype: Callable[..., Any] = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)
        function = prototype(address(self.device, name.encode()))
        count = c_uint32(0 if into is None else len(into))
        if into is None:
            function(self.device, ctypes.addressof(executable), count, None)
            into = (kind * count.value)(*(kind(sType=number) for _ in range(count.value)))
        function(self.device, ctypes.addressof(executable), count, ctypes.addressof(into))
        return into

    def _representations(self, executable: Structure) -> dict[str, str]:
        name = "vkGetPipelineExecutableInternalRepresentationsKHR"
        sized = self._enumerate(name, Representation, REPRESENTATION, executable)
        buffers = [ctypes.create_string_buffer(one.bytes) for one in sized]
        for one, buffer in zip(sized, buffers, strict=True):
            one.data = ctypes.addressof(buffer)
        self._enumerate(name, Representation, REPRESENTATION, executable, sized)
        return {one.name.decode(): b.value.decode(errors="replace") for one, b in zip(sized, buffers, strict=True)}


def main() -> None:
    """Compile the jobs of stdin."""
    compiler = Compiler()
    print(json.dumps({"device": compiler.name, "mesa": compiler.mesa}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            outcome = compiler.compile(Path(job["code"]).read_bytes(), job["entry"], job["bindings"])
        except RuntimeError as error:
            outcome = {"error": str(error)}
        print(json.dumps({"name": job["name"], **outcome}), flush=True)


if __name__ == "__main__":
    main()
