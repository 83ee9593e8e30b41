/** The machine's camera: what it sees, one still of it, and why there is none. */

import type { Image } from "../../worker";
import { t } from "../text";
import { PageError } from "../text/page_error";

/** The names of the browser's errors, and those that stand for the same. */
const REASONS = {
  NotAllowedError: "refused",
  SecurityError: "refused",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
} as const;

/** Ask for a camera: the one of this `id`, or the browser's choice, of several the one that looks away from the visitor. */
export async function openCamera(id?: string): Promise<MediaStream> {
  const { mediaDevices } = navigator;
  if (mediaDevices?.getUserMedia === undefined) throw cameraError("insecure");
  const wanted = id === undefined ? { facingMode: { ideal: "environment" } } : { deviceId: { exact: id } };
  try {
    return await mediaDevices.getUserMedia({ video: { ...wanted, width: { ideal: 1280 }, height: { ideal: 1280 } } });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    if (!(name in REASONS)) throw error;
    throw cameraError(REASONS[name as keyof typeof REASONS]);
  }
}

export function cameraError(reason: keyof ReturnType<typeof t.peek>["cameraErrors"]): PageError {
  return new PageError(
    () => t.value.camera,
    () => t.value.cameraErrors[reason],
  );
}

/** The cameras of this machine. Their names are known once one is open. */
export async function listCameras(): Promise<readonly MediaDeviceInfo[]> {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === "videoinput");
}

/** Switch the camera off: its light goes out. */
export function closeCamera(stream: MediaStream | undefined): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** What the video shows now. */
export function takeStill(video: HTMLVideoElement): Image {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
  context.drawImage(video, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height) as Image;
}
