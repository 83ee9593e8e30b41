/** The PNG file of a picture: the one that the service made, byte for byte, or one made here. */

import type { GeneratedImage } from "../engine/index.ts";
import { encodePng } from "../engine/png.ts";

const files = new WeakMap<GeneratedImage, Blob>();

export function keepFile(picture: GeneratedImage, file: Blob): void {
  files.set(picture, file);
}

export async function pictureFile(picture: GeneratedImage): Promise<Blob> {
  return files.get(picture) ?? encodePng(picture, picture.metadata);
}
