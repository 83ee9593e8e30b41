/** Numbers of bytes for readers. */

/** "2.2 GB" or "18 MB", with the decimal point of a language */
export function gigabytes(bytes: number, locale = "en"): string {
  if (bytes < 0.1e9) return `${Math.ceil(bytes / 1e6)} MB`;
  const tenths = { minimumFractionDigits: 1, useGrouping: false };
  return `${(Math.ceil(bytes / 0.1e9) / 10).toLocaleString(locale, tenths)} GB`;
}
