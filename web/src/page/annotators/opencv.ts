/** The annotators, on OpenCV. The twin of mlc_controlnet/images/annotators.py: the same names, parameters and results. */

import type { Mat } from "@techstark/opencv-js";
import { type Plane, resizePicture, toImage, toPlanes, transpose } from "../../engine/picture";
import type { Image } from "../../worker";
import { type Annotation, type AnnotatorName, parameterOf } from "./annotation";

export type OpenCv = typeof import("@techstark/opencv-js");

const SCRIBBLE_SIGMAS = [0.5, 5] as const; // pixels: of a line, and of what is beside it
const SOFT_EDGE_SIGMAS = [1, 2, 4] as const; // pixels
const LINE_ART_SIGMA = 6; // pixels: strokes are narrower
const FAINT = 8; // of 255: what is no stroke
const FAINTEST_STROKE = 16; // of 255: a median stroke that is not made any lighter

/** Reads a parameter by its name. */
type Read = (parameter: string) => number;

/** Each takes RGB, 8 bits, and returns one grey or three colours a pixel, row by row. Mats that it makes go to `keep`. */
type Annotator = (cv: OpenCv, picture: Mat, read: Read, keep: Keep) => ArrayLike<number>;
type Keep = <T extends Mat>(mat: T) => T;

const ANNOTATORS: Readonly<Record<Exclude<AnnotatorName, "none" | "tile" | "onnx">, Annotator>> = {
  canny: (cv, picture, read, keep) => {
    const edges = keep(new cv.Mat());
    cv.Canny(picture, edges, read("low"), read("high"));
    return edges.data;
  },
  scribble: (cv, picture, read, keep) => {
    const [fine, coarse] = SCRIBBLE_SIGMAS.map((sigma) => blurred(cv, picture, sigma, keep).data32F);
    return strongest(fine.length / 3, (i) => coarse[i] - fine[i]).map((darker) =>
      darker > read("threshold") ? 255 : 0,
    );
  },
  softedge: (cv, picture, _, keep) => {
    const edges = new Float32Array(picture.rows * picture.cols);
    for (const sigma of SOFT_EDGE_SIGMAS) {
      const soft = blurred(cv, picture, sigma, keep);
      const [across, down] = [keep(new cv.Mat()), keep(new cv.Mat())];
      cv.Sobel(soft, across, cv.CV_32F, 1, 0);
      cv.Sobel(soft, down, cv.CV_32F, 0, 1);
      const [x, y] = [across.data32F, down.data32F];
      const slope = strongest(edges.length, (i) => Math.hypot(x[i], y[i]));
      for (let i = 0; i < edges.length; i++) edges[i] += sigma * slope[i];
    }
    const most = edges.reduce((a, b) => Math.max(a, b), 1);
    return edges.map((edge) => (255 * edge) / most);
  },
  lineart: (cv, picture, _, keep) => {
    const around = blurred(cv, picture, LINE_ART_SIGMA, keep).data32F;
    const strokes = strongest(around.length / 3, (i) => around[i] - picture.data[i]);
    const visible = strokes.filter((stroke) => stroke > FAINT).sort();
    const middle = visible.length >> 1;
    const median = visible.length % 2 ? visible[middle] : (visible[middle - 1] + visible[middle]) / 2;
    const scale = 127 / Math.max(visible.length ? median : 0, FAINTEST_STROKE);
    return strokes.map((stroke) => scale * stroke);
  },
  blur: (cv, picture, read, keep) => blurred(cv, picture, read("sigma"), keep).data32F,
  color: (cv, picture, read, keep) => {
    const { cols, rows } = picture;
    const cells = (side: number) => Math.max(1, Math.floor(side / read("factor")));
    const [small, grid] = [keep(new cv.Mat()), keep(new cv.Mat())];
    cv.resize(picture, small, new cv.Size(cells(cols), cells(rows)), 0, 0, cv.INTER_AREA);
    cv.resize(small, grid, new cv.Size(cols, rows), 0, 0, cv.INTER_NEAREST);
    return grid.data;
  },
  threshold: (cv, picture, read, keep) => {
    const [grey, lines] = [keep(new cv.Mat()), keep(new cv.Mat())];
    cv.cvtColor(picture, grey, cv.COLOR_RGB2GRAY);
    cv.threshold(grey, lines, read("level"), 255, cv.THRESH_BINARY);
    return lines.data;
  },
  normal: (cv, picture, read, keep) => {
    const [grey, depth] = [keep(new cv.Mat()), keep(new cv.Mat())];
    cv.cvtColor(picture, grey, cv.COLOR_RGB2GRAY);
    grey.convertTo(depth, cv.CV_32F, 1 / 255);
    const [across, down] = [keep(new cv.Mat()), keep(new cv.Mat())];
    cv.Sobel(depth, across, cv.CV_32F, 1, 0);
    cv.Sobel(depth, down, cv.CV_32F, 0, 1);
    const [x, y, z] = [across.data32F, down.data32F, read("depth")];
    const normals = new Float32Array(3 * x.length);
    for (let i = 0; i < x.length; i++) {
      const isFar = depth.data32F[i] < read("background");
      const normal = isFar ? [0, 0, z] : [x[i], y[i], z];
      const length = Math.hypot(...normal);
      normals.set(
        normal.map((part) => 127.5 * (part / length) + 127.5),
        3 * i,
      );
    }
    return normals;
  },
};

/** Resolves when OpenCV.js can be used. It has a `then` of its own, so that no promise can resolve to it: it is in a record. */
export function whenReady(opencv: OpenCv): Promise<{ readonly cv: OpenCv }> {
  const loading = opencv as OpenCv & { onRuntimeInitialized: () => void };
  if (loading.Mat !== undefined) return Promise.resolve({ cv: opencv });
  return new Promise((resolve) => {
    loading.onRuntimeInitialized = () => resolve({ cv: opencv });
  });
}

/** Apply an annotator to an opaque picture; the result has its size. */
export function annotateWith(cv: OpenCv, image: Image, annotation: Annotation): Image {
  const { name } = annotation;
  if (name === "none" || name === "onnx") return image;
  const read: Read = (parameter) => parameterOf(annotation, parameter);
  if (name === "tile") return tile(image, read("factor"));
  const mats: Mat[] = [];
  const keep: Keep = (mat) => {
    mats.push(mat);
    return mat;
  };
  try {
    const rgba = keep(new cv.Mat(image.height, image.width, cv.CV_8UC4));
    rgba.data.set(image.data);
    const picture = keep(new cv.Mat());
    cv.cvtColor(rgba, picture, cv.COLOR_RGBA2RGB);
    return toRgba(image, ANNOTATORS[name](cv, picture, read, keep));
  } finally {
    for (const mat of mats) mat.delete(); // OpenCV's heap knows no garbage collection
  }
}

function blurred(cv: OpenCv, picture: Mat, sigma: number, keep: Keep): Mat {
  const [precise, soft] = [keep(new cv.Mat()), keep(new cv.Mat())];
  picture.convertTo(precise, cv.CV_32F);
  cv.GaussianBlur(precise, soft, new cv.Size(0, 0), sigma);
  return soft;
}

/** Return the largest value of three channels for each of `count` pixels, 0 at least. */
function strongest(count: number, value: (i: number) => number): Float32Array<ArrayBuffer> {
  const most = new Float32Array(count);
  for (let i = 0; i < count; i++) most[i] = Math.max(0, value(3 * i), value(3 * i + 1), value(3 * i + 2));
  return most;
}

/** The picture at a fraction of its size, enlarged again with the engine's filter, which is Pillow's. */
function tile(image: Image, factor: number): Image {
  const { width, height } = image;
  const cells = { width: Math.max(1, Math.floor(width / factor)), height: Math.max(1, Math.floor(height / factor)) };
  const small = toPlanes(image).planes.map((plane) => boxes(plane, { width, height }, cells));
  return toImage(resizePicture({ ...cells, planes: small }, { width, height }));
}

type Size = Pick<Image, "width" | "height">;

/** The mean of the pixels in each cell, along rows and then along columns, each rounded as Pillow does. */
function boxes(plane: Plane, from: Size, to: Size): Plane {
  const wide = transpose(boxRows(plane, from, to.width), { width: to.width, height: from.height });
  const both = boxRows(wide, { width: from.height, height: to.width }, to.height);
  return transpose(both, { width: to.height, height: to.width });
}

function boxRows(plane: Plane, { width, height }: Size, count: number): Plane {
  const result = new Uint8ClampedArray(count * height);
  for (let cell = 0; cell < count; cell++) {
    const [begin, end] = [cell, cell + 1].map((i) => Math.round((i * width) / count));
    for (let y = 0; y < height; y++) {
      let sum = 0;
      for (let x = begin; x < end; x++) sum += plane[y * width + x];
      result[y * count + cell] = Math.floor(sum / (end - begin) + 0.5);
    }
  }
  return result;
}

/** Turn grey or colours into opaque RGBA, rounded to the nearest even as NumPy does. */
function toRgba({ width, height }: Size, values: ArrayLike<number>): Image {
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  const channels = values.length / (width * height);
  for (let i = 0; i < width * height; i++) {
    for (let channel = 0; channel < 3; channel++) data[4 * i + channel] = values[channels === 1 ? i : 3 * i + channel];
  }
  return { width, height, data };
}
