/**
 * manifest.json: the contents of a bundle, parsed and validated.
 * Twin: mlc_controlnet/bundle/manifest.py.
 */

import { FORMAT_VERSION, MANIFEST_NAME } from "./constants.ts";
import { UserError } from "./errors.ts";
import { parseJson, REMEDY } from "./json_record.ts";
import { faultsOf } from "./manifest_faults.ts";
import { type Manifest, manifest } from "./manifest_schema.ts";

export type * from "./manifest_schema.ts";

/**
 * Parse and validate; `where` names the file in errors.
 *
 * Throws UserError for anything that is not a complete manifest of this format version.
 */
export function parseManifest(bytes: Uint8Array, where: string = MANIFEST_NAME): Manifest {
  const raw = parseJson(bytes, where, "a bundle's manifest");
  const version = (raw as { format_version?: unknown } | null)?.format_version;
  if (version !== FORMAT_VERSION) {
    throw new UserError(
      `${where}: format_version`,
      JSON.stringify(version) ?? "none",
      String(FORMAT_VERSION),
      "build the bundle again with this version of mlc_controlnet",
      "bad-bundle",
    );
  }
  const parsed = manifest(raw, where);
  for (const [subject, got, wanted] of faultsOf(parsed)) {
    throw new UserError(`${where}: ${subject}`, got, wanted, REMEDY, "bad-bundle");
  }
  return parsed;
}
