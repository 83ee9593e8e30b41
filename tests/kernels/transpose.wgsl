// turned [columns, rows] = the transpose of source [rows, columns]. A workgroup turns a tile of 16x16 in its memory, so that
// neighbouring threads read and write neighbouring numbers. Tiles at the edges are cut off.
override rows : u32;
override columns : u32;
const side = 16u;

@group(0) @binding(0) var<storage, read> source : array<f32>;
@group(0) @binding(1) var<storage, read_write> turned : array<f32>;

var<workgroup> tile : array<f32, side * 17>; // a column begins in another bank than the next

@compute @workgroup_size(side, side)
fn transpose(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_id) thread : vec3<u32>) {
  let first = side * group.xy;
  let read = first + thread.xy;
  if (read.x < columns && read.y < rows) {
    tile[thread.y * 17u + thread.x] = source[read.y * columns + read.x];
  }
  workgroupBarrier();
  let written = first.yx + thread.xy;
  if (written.x < rows && written.y < columns) {
    turned[written.y * rows + written.x] = tile[thread.x * 17u + thread.y];
  }
}
