/** The size of a picture. */

/** In pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}
