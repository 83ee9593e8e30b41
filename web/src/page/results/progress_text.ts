/** The texts of the status line. */

import type { Progress } from "../../worker";
import { t } from "../text";

/** The progress of loading, whose two phases overlap. */
export class LoadProgress {
  private readonly phases = new Map<Progress["phase"], Progress>();

  /** Record a report. */
  add(progress: Progress): void {
    this.phases.set(progress.phase, progress);
  }

  /** The progress from 0 to 1. Each phase counts half. */
  get fraction(): number {
    const of = (phase: Progress["phase"]) => {
      const progress = this.phases.get(phase);
      return progress === undefined || progress.total === 0 ? 0 : progress.done / progress.total;
    };
    return (of("download") + of("compile")) / 2;
  }

  get text(): string {
    const download = this.phases.get("download");
    const compile = this.phases.get("compile");
    const { loading, loadingParts, loadingBytes, loadingKernels } = t.value;
    const parts: string[] = [];
    if (download !== undefined) parts.push(loadingBytes(megabytes(download.done), megabytes(download.total)));
    if (compile !== undefined) parts.push(loadingKernels(compile.done, compile.total));
    return parts.length ? loadingParts(parts.join(", ")) : loading;
  }
}

/** Return for example "Step 3 of 20, about 12 s left". `elapsedMs` counts from the begin of the first step. */
export function stepText(index: number, count: number, elapsedMs: number): string {
  const left = ((count - index - 1) * elapsedMs) / (index + 1) / 1000;
  const rest = left >= 1 ? t.value.timeLeft(Math.round(left)) : "";
  return t.value.step(index + 1, count) + rest;
}

/** Format a time as in "1.2 s", in German "1,2 s". */
export function seconds(milliseconds: number): string {
  return `${withOneDecimal(milliseconds / 1000)} s`;
}

function megabytes(bytes: number): string {
  return withOneDecimal(bytes / 1e6);
}

function withOneDecimal(number: number): string {
  const digits = { minimumFractionDigits: 1, maximumFractionDigits: 1, useGrouping: false };
  return number.toLocaleString(t.value.locale, digits);
}
