/** Read pixels from files and paint them on canvases. */

import type { Image } from "../../worker";
import { t } from "../text";
import { PageError } from "../text/page_error";
import { type Size, type Stroke, widthAt } from "./marks";
import { readHeaderSize } from "./picture_header";

/** What a picture is for. */
export type Subject = keyof ReturnType<typeof t.peek>["subjects"];

/** A larger picture is not decoded: it would take four bytes a pixel, several times over, and the tab with it. */
const MOST_MEGAPIXELS = 100;

/** Decode a picture's file. Throws PageError for a file that the browser cannot show, and for one that is too large. */
export async function readPicture(file: File, subject: Subject): Promise<Image> {
  checkSize(await readHeaderSize(file), file, subject);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new PageError(
      () => nameOf(file, subject),
      () => {
        const complaint = t.value.noPictureFile;
        return { ...complaint, got: file.type && !file.type.startsWith("image/") ? file.type : complaint.got };
      },
    );
  }
  checkSize(bitmap, file, subject); // of the formats whose headers are not read
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height) as Image;
}

function checkSize(size: Size | undefined, file: File, subject: Subject): void {
  if (size === undefined || size.width * size.height <= 1e6 * MOST_MEGAPIXELS) return;
  const { width, height } = size;
  throw new PageError(
    () => nameOf(file, subject),
    () => t.value.tooManyPixels(width, height, MOST_MEGAPIXELS),
  );
}

function nameOf(file: File, subject: Subject): string {
  return `${t.value.subjects[subject]} ${file.name}`;
}

/** Paint `image` onto `canvas`, which takes its size. */
export function paintImage(canvas: HTMLCanvasElement, image: Image): void {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d")?.putImageData(new ImageData(image.data, image.width, image.height), 0, 0);
}

/** Draw a stroke as a line with round ends. A single point becomes a dot. */
export function paintStroke(
  context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D,
  stroke: Stroke,
  color: string,
): void {
  const { points, width, pressures } = stroke;
  if (stroke.isFilled) {
    context.fillStyle = color;
    context.beginPath();
    for (const { x, y } of points) context.lineTo(x, y);
    context.fill("evenodd");
  }
  context.strokeStyle = color;
  context.lineCap = "round";
  context.lineJoin = "round";
  if (pressures === undefined) {
    context.lineWidth = width;
    context.beginPath();
    for (const { x, y } of points) context.lineTo(x, y);
    if (points.length === 1) context.lineTo(points[0].x, points[0].y);
    context.stroke();
    return;
  }
  for (const [i, to] of points.entries()) {
    const from = points[Math.max(0, i - 1)];
    context.lineWidth = widthAt(stroke, i);
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }
}

/** Copy `image` to a new canvas of its size. */
export function toCanvas(image: Image): OffscreenCanvas {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d")?.putImageData(new ImageData(image.data, image.width, image.height), 0, 0);
  return canvas;
}

/** Offer `content` to the visitor as a download. */
export function saveFile(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // by then the browser has begun to read the data
}
