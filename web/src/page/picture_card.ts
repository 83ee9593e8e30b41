/** The card that shows previews and the finished picture. */

import { encodePng, type GeneratedImage, type Image } from "../worker";
import { paintImage, saveFile } from "./canvas";

export class PictureCard {
  private finished: GeneratedImage | undefined;

  /** `onRepaint` is called with the picture if the visitor wants to repaint a part of it. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly placeholder: HTMLElement,
    private readonly downloadButton: HTMLButtonElement,
    private readonly repaintButton: HTMLButtonElement,
    onRepaint: (picture: Image) => void,
  ) {
    downloadButton.addEventListener("click", () => void this.download());
    repaintButton.addEventListener("click", () => this.finished && onRepaint(this.finished));
  }

  /** Scroll to the picture: on a phone it is below the form. */
  scrollIntoView(): void {
    this.canvas.scrollIntoView({ block: "nearest" });
  }

  showPreview(preview: Image): void {
    this.show(preview, "Preview");
  }

  showFinished(picture: GeneratedImage): void {
    this.finished = picture;
    this.downloadButton.disabled = this.repaintButton.disabled = false;
    this.restore();
  }

  /** Show the last finished picture, or none, after a run that ended without a picture. */
  restore(): void {
    if (this.finished !== undefined) {
      this.show(this.finished, this.finished.settings.prompt || "Picture without a prompt");
      return;
    }
    this.canvas.getContext("2d")?.reset();
    this.canvas.ariaLabel = "No picture yet";
    this.placeholder.hidden = false;
  }

  private show(image: Image, label: string): void {
    paintImage(this.canvas, image);
    this.canvas.ariaLabel = label;
    this.placeholder.hidden = true;
  }

  private async download(): Promise<void> {
    if (this.finished === undefined) return;
    saveFile(await encodePng(this.finished, this.finished.metadata), fileName(this.finished));
  }
}

/** Make a file name of the prompt's words and the seed, such as "gold-circle-7.png". */
function fileName({ settings }: GeneratedImage): string {
  const words = settings.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  return `${words.join("-").slice(0, 60)}-${settings.seed}.png`;
}
