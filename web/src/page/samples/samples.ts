/** Samples to begin with, for each kind of ControlNet: what the board shows after one is chosen. */

import type { ControlKind, Image } from "../../worker";
import { type AnnotatorName, annotationOf } from "../annotators/annotation";
import { drawShape, ringShape, type Shape } from "../drawing/control_shape";
import type { Size } from "../drawing/marks";
import { DRAWINGS, type LineDrawing, SCRIBBLES, STRAIGHT_DRAWINGS, type Subject, strokesOf } from "./outlines";
import { POSES, poseStrokes } from "./pose";
import { RINGS } from "./rings";
import { MEADOW, ROOM, renderScene, type Scene, type View } from "./scene";

export interface Sample {
  /** What it shows, if the lines alone do not tell a model. */
  readonly subject?: Subject;
  /** What the board shows. `annotator` is the one for a photo. */
  shape(board: Size, annotator: AnnotatorName): Shape;
  /** A small picture of it. */
  thumbnail(size: Size): Image;
}

/** Shares of the board's shorter side. */
const THIN = 1 / 256;
const BOLD = 1 / 64;

const rings: readonly Sample[] = RINGS.map((numbers) => drawn((board) => ringShape(board, ...numbers)));

const lines = (drawings: readonly LineDrawing[], width: number): readonly Sample[] =>
  drawings.map(({ subject, lines }) => ({
    ...drawn((board) => ({ kind: "strokes", strokes: strokesOf(lines, board, width) })),
    subject,
  }));

const poses: readonly Sample[] = POSES.map((pose) =>
  drawn((board) => {
    const points = strokesOf([pose], board, 0)[0].points;
    return { kind: "strokes", strokes: poseStrokes(points, board) };
  }),
);

const photos = [pictured(ROOM, "photo"), pictured(MEADOW, "photo")];
const depths = [pictured(ROOM, "depth"), pictured(MEADOW, "depth")];
const classes = [pictured(ROOM, "classes"), pictured(MEADOW, "classes")];

/** By ControlNet 1.1's words. Where lines are wanted, a photo stands beside drawings. */
const BY_KIND: Readonly<Record<ControlKind, readonly Sample[]>> = {
  canny: [...photos, ...lines(DRAWINGS.slice(0, 2), THIN)],
  softedge: [...photos, ...lines(DRAWINGS.slice(0, 2), THIN)],
  mlsd: [...lines(STRAIGHT_DRAWINGS, THIN), ...photos],
  lineart: lines(DRAWINGS, THIN),
  lineart_anime: lines(DRAWINGS, THIN),
  scribble: lines(SCRIBBLES, BOLD),
  depth: depths,
  normalbae: depths,
  openpose: poses,
  seg: classes,
  color: photos,
  tile: photos,
  shuffle: photos,
  ip2p: photos,
  inpaint: photos,
};

/** The samples for a kind of ControlNet; rings for a model that knows nothing else. */
export function samplesFor(kind: string, isOneRing: boolean): readonly Sample[] {
  if (isOneRing) return rings;
  return BY_KIND[kind as ControlKind] ?? [...lines(DRAWINGS.slice(0, 2), BOLD), ...photos];
}

function drawn(shape: (board: Size) => Shape): Sample {
  return { shape, thumbnail: (size) => drawShape(shape(size), size) };
}

/** A photo, and a depth picture for normals, need an annotator; the other views are ready as they are. */
function pictured(scene: Scene, view: View): Sample {
  return {
    shape: (board, annotator) => ({
      kind: "picture",
      source: renderScene(scene, board, view),
      fit: "crop",
      annotation: annotationOf(view === "classes" ? "none" : annotator, board),
      strokes: [],
    }),
    thumbnail: (size) => renderScene(scene, size, view),
  };
}
