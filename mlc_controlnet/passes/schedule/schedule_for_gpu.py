"""Schedule for a GPU the PrimFuncs that no tuning record covers.

Before: PrimFuncs as they were fused, loops as written
After:  each under the first rule that accepts it, its loops bound to workgroups and threads

Our own rules for convolutions and matrix products come first. dlight's rules take the others, and its last rule,
Fallback, accepts everything. PrimFuncs that are marked as scheduled stay as they are.
"""

import tvm
from tvm.s_tir import dlight

from mlc_controlnet.kernels.schedule_convolution_gpu import Convolution
from mlc_controlnet.kernels.schedule_matmul_gpu import MatrixProduct
from mlc_controlnet.kernels.schedule_row_product_gpu import RowProduct


@tvm.transform.module_pass(opt_level=0, name="ScheduleForGPU")
class ScheduleForGPU:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rules = dlight.ApplyDefaultSchedule(
            Convolution(),
            MatrixProduct(),
            RowProduct(),
            dlight.gpu.Matmul(),
            dlight.gpu.GEMV(),
            dlight.gpu.Reduction(),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        )
        return rules(mod)
