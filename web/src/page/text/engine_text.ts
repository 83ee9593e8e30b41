/** What the engine says, in the page's language. */

import { noticeOf } from "../../engine/notices";
import { type EngineInfo, gigabytes, type Notice, OPTION_NAMES, optionWords, sayNotice } from "../../worker";
import { t } from "./index";

/** The name of what an error or a notice is about: an option has its field's label. Undefined if it has no text here. */
export function subjectText(subject: string): string | undefined {
  const { options, subjects, errorSubjects } = t.value;
  const option = OPTION_NAMES.find((name) => optionWords(name) === subject);
  if (option !== undefined) return options[option];
  return { ...errorSubjects, ...subjects }[subject];
}

/** A notice as a sentence; in English the engine's own. `subject` is what it is about, if the page knows that better. */
export function noticeText(notice: Notice, subject?: string): string {
  const { notices } = t.value;
  if (notices === undefined && subject === undefined) return notice.text;
  const values: Partial<Record<string, unknown>> = { ...notice.values };
  if (typeof values.subject === "string") {
    values.subject = subject ?? (notices && subjectText(values.subject)) ?? values.subject;
  }
  const told = noticeOf(notice.code, values as Notice["values"] as never);
  return notices === undefined ? told.text : sayNotice(told, notices);
}

/** "2.2 GB", in German "2,2 GB". */
export function bytesText(bytes: number): string {
  return gigabytes(bytes, t.value.locale);
}

/** Why a device draws. The service's reason is its address. */
export function reasonText({ reason, reasonCode }: EngineInfo): string {
  return (reasonCode && t.value.deviceReasons?.[reasonCode]) ?? reason;
}

/** What draws: a GPU's name, or the processor. */
export function deviceText({ device, threads }: EngineInfo): string {
  return (threads > 0 && t.value.processor?.(threads)) || device;
}
