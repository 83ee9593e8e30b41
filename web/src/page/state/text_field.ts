/** Fields that visitors write in: keys, pasted and dropped text there are theirs. */

const NOT_WRITTEN_IN = ["radio", "checkbox", "range"];

export function isTextField(target: EventTarget | null): boolean {
  if (target instanceof HTMLTextAreaElement) return true;
  return target instanceof HTMLInputElement && !NOT_WRITTEN_IN.includes(target.type);
}
