/** Hosts whose manifest is not the one that was built. */

/** Serve the manifest with a change. @param {{ faults: Map<string, any> }} host @param {(manifest: any) => void} change */
export function spoilManifest(host, change) {
  host.faults.set("bundle/manifest.json", (/** @type {Buffer} */ content) => {
    const manifest = JSON.parse(content.toString());
    change(manifest);
    return Buffer.from(JSON.stringify(manifest));
  });
}
