/** The files of a folder that the visitor drops or chooses. */

import type { OwnFile } from "../../worker";

/** The files below a folder that was dropped; undefined if none was. */
export async function droppedFolder(data: DataTransfer | null): Promise<OwnFile[] | undefined> {
  const entries = [...(data?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry !== null);
  const folder = entries.find((entry) => entry?.isDirectory);
  return folder === undefined ? undefined : filesBelow(folder as FileSystemDirectoryEntry, "");
}

/** The files of an input with `webkitdirectory`. */
export function chosenFolder(files: FileList): OwnFile[] {
  return [...files].map((file) => ({ path: file.webkitRelativePath, file }));
}

async function filesBelow(folder: FileSystemDirectoryEntry, path: string): Promise<OwnFile[]> {
  const reader = folder.createReader();
  const found: OwnFile[] = [];
  for (;;) {
    // It gives a hundred entries at a time, and at the end none.
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (entries.length === 0) return found;
    for (const entry of entries) {
      const name = `${path}${entry.name}`;
      if (entry.isDirectory) found.push(...(await filesBelow(entry as FileSystemDirectoryEntry, `${name}/`)));
      else {
        const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
        found.push({ path: name, file });
      }
    }
  }
}
