// product [rows, columns] = left [rows, depth] by right [depth, columns] + bias, by matrix instructions of 16x16x16:
// float16 operands, float32 sums. depth: a multiple of 32; columns: of 64. For subgroups of 64 threads.
// A workgroup computes 64x64, each of its two subgroups 32x64. right's tile is kept by columns, since a thread reads a
// column of it as it reads a row of left's: 16 numbers that lie together.
enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity); // subgroup_id is the same in a subgroup, not in a workgroup

override rows : u32;
override depth : u32;
override columns : u32;
const step = 32u;   // of depth
const stride = 10u; // vectors of 4 from one row of a tile to the next: 8, and 2 against conflicts of banks

@group(0) @binding(0) var<storage, read> left : array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> right : array<vec4<f16>>;
@group(0) @binding(2) var<storage, read> bias : array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> product : array<vec4<f16>>;

var<workgroup> left_tile : array<vec4<f16>, 64 * stride>;
var<workgroup> right_tile : array<vec4<f16>, 64 * stride>;
var<workgroup> sums : array<f32, 2 * 256>; // a matrix of each subgroup

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sum = subgroup_matrix_result<f32, 16, 16>;

fn write(sum : Sum, row : u32, column : u32, subgroup : u32, lane : u32) {
  subgroupMatrixStore<row_major>(&sums, subgroup * 256u, sum, 16u);
  workgroupBarrier();
  let at = subgroup * 256u + lane * 4u;
  let place = column / 4u + lane % 4u;
  let values = vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]) + vec4<f32>(bias[place]);
  if (row + lane / 4u < rows) {
    product[(row + lane / 4u) * (columns / 4u) + place] = vec4<f16>(values);
  }
  workgroupBarrier();
}

@compute @workgroup_size(128)
fn matrix_product(
  @builtin(workgroup_id) group : vec3<u32>,
  @builtin(local_invocation_index) thread : u32,
  @builtin(subgroup_id) subgroup : u32,
  @builtin(subgroup_invocation_id) lane : u32
) {
  let row = group.y * 64u;
  let column = group.x * 64u;
  var sum_00 : Sum;
  var sum_01 : Sum;
  var sum_02 : Sum;
  var sum_03 : Sum;
  var sum_10 : Sum;
  var sum_11 : Sum;
  var sum_12 : Sum;
  var sum_13 : Sum;
  for (var k = 0u; k < depth; k += step) {
    for (var i = 0u; i < 4u; i++) {
      let at = thread / 8u + 16u * i;
      left_tile[at * stride + thread % 8u] = left[min(row + at, rows - 1u) * (depth / 4u) + k / 4u + thread % 8u];
    }
    let at = (k + thread / 16u * 4u) * (columns / 4u) + column / 4u + thread % 16u;
    let turned = transpose(mat4x4<f16>(
      right[at], right[at + columns / 4u], right[at + columns / 2u], right[at + 3u * (columns / 4u)]));
    for (var i = 0u; i < 4u; i++) {
      right_tile[(thread % 16u * 4u + i) * stride + thread / 16u] = turned[i];
    }
    workgroupBarrier();
    for (var inner = 0u; inner < step / 4u; inner += 4u) {
      let first = subgroup * 32u * stride + inner;
      let left_0 = subgroupMatrixLoad<Left, row_major>(&left_tile, first, stride);
      let left_1 = subgroupMatrixLoad<Left, row_major>(&left_tile, first + 16u * stride, stride);
      let right_0 = subgroupMatrixLoad<Right, col_major>(&right_tile, inner, stride);
      let right_1 = subgroupMatrixLoad<Right, col_major>(&right_tile, inner + 16u * stride, stride);
      let right_2 = subgroupMatrixLoad<Right, col_major>(&right_tile, inner + 32u * stride, stride);
      let right_3 = subgroupMatrixLoad<Right, col_major>(&right_tile, inner + 48u * stride, stride);
      sum_00 = subgroupMatrixMultiplyAccumulate(left_0, right_0, sum_00);
      sum_01 = subgroupMatrixMultiplyAccumulate(left_0, right_1, sum_01);
      sum_02 = subgroupMatrixMultiplyAccumulate(left_0, right_2, sum_02);
      sum_03 = subgroupMatrixMultiplyAccumulate(left_0, right_3, sum_03);
      sum_10 = subgroupMatrixMultiplyAccumulate(left_1, right_0, sum_10);
      sum_11 = subgroupMatrixMultiplyAccumulate(left_1, right_1, sum_11);
      sum_12 = subgroupMatrixMultiplyAccumulate(left_1, right_2, sum_12);
      sum_13 = subgroupMatrixMultiplyAccumulate(left_1, right_3, sum_13);
    }
    workgroupBarrier();
  }
  let first = row + subgroup * 32u;
  write(sum_00, first, column, subgroup, lane);
  write(sum_01, first, column + 16u, subgroup, lane);
  write(sum_02, first, column + 32u, subgroup, lane);
  write(sum_03, first, column + 48u, subgroup, lane);
  write(sum_10, first + 16u, column, subgroup, lane);
  write(sum_11, first + 16u, column + 16u, subgroup, lane);
  write(sum_12, first + 16u, column + 32u, subgroup, lane);
  write(sum_13, first + 16u, column + 48u, subgroup, lane);
}
