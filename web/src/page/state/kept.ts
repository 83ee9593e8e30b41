/** What the browser keeps of the page between visits: small texts, by name. Where it forbids that, nothing is kept. */

/** An origin may host several sites. */
const keyOf = (name: string) => `mlc-controlnet ${new URL(".", location.href).pathname} ${name}`;

/** Read what was kept under a name; undefined if there is nothing, or nothing of this kind. */
export function readKept<T>(name: string, isRight: (value: unknown) => value is T): T | undefined {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(keyOf(name)) ?? "null");
    return isRight(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Keep a value under a name. Returns whether the browser allows it. */
export function keep(name: string, value: unknown): boolean {
  try {
    localStorage.setItem(keyOf(name), JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** Call `heed` when another tab of this site keeps something under a name. Returns what ends that. */
export function onKeptElsewhere(name: string, heed: () => void): () => void {
  const listen = ({ key }: StorageEvent) => {
    if (key === null || key === keyOf(name)) heed(); // null: all of it is deleted
  };
  addEventListener("storage", listen);
  return () => removeEventListener("storage", listen);
}

export function isText(value: unknown): value is string {
  return typeof value === "string";
}

export function isTextRecord(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every(isText);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
