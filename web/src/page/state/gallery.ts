/** Finished pictures, kept by the browser (IndexedDB) with their settings: they are there again after a reload. */

import { type Signal, signal } from "@preact/signals";
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { Settings } from "../../worker";

const STORE = "pictures";

/** A picture of the gallery. */
export interface KeptPicture {
  /** Positive; negative if the browser does not keep it. */
  readonly id: number;
  /** Milliseconds since 1970. */
  readonly created: number;
  /** The PNG file, with its settings in it. */
  readonly png: Blob;
  readonly settings: Settings;
  /** The name of the model. */
  readonly model: string;
  /** PNG files of what the ControlNets were given, in the order of `settings.controlnets`. */
  readonly controls: readonly Blob[];
}

interface GallerySchema extends DBSchema {
  [STORE]: { key: number; value: Omit<KeptPicture, "id"> };
}

/** What keeps pictures from being kept: the browser forbids it, as in some private windows, or has no room. */
export type Trouble = "forbidden" | "full";

/** Bytes that this site takes of the browser's storage, and those it may take. */
export interface Room {
  readonly usage: number;
  readonly quota: number;
}

export class Gallery {
  /** The newest comes first. */
  readonly pictures: Signal<readonly KeptPicture[]> = signal([]);
  readonly room: Signal<Room | undefined> = signal(undefined);
  readonly trouble: Signal<Trouble | undefined> = signal(undefined);
  private database: IDBPDatabase<GallerySchema> | undefined;
  private nextUnkept = -1;

  /** Open the pictures of earlier visits. Where that is forbidden, the gallery holds those of this visit only. */
  async open(): Promise<void> {
    try {
      this.database = await openDB<GallerySchema>(databaseName(), 1, {
        upgrade: (database) => void database.createObjectStore(STORE, { autoIncrement: true }),
      });
      const [keys, values] = await Promise.all([this.database.getAllKeys(STORE), this.database.getAll(STORE)]);
      const kept = values.map((value, i) => ({ ...value, id: keys[i] }));
      this.pictures.value = [...this.pictures.peek(), ...kept.reverse()];
    } catch {
      this.trouble.value = "forbidden";
    }
    await this.measure();
  }

  /** Add a picture. It is shown even if the browser cannot keep it. */
  async add(picture: Omit<KeptPicture, "id">): Promise<void> {
    let id = this.nextUnkept;
    try {
      if (this.database === undefined) this.nextUnkept--;
      else id = await this.database.add(STORE, picture);
    } catch (error) {
      this.nextUnkept--;
      this.trouble.value = error instanceof DOMException && error.name === "QuotaExceededError" ? "full" : "forbidden";
    }
    this.pictures.value = [{ ...picture, id }, ...this.pictures.peek()];
    await this.measure();
  }

  async remove(id: number): Promise<void> {
    this.pictures.value = this.pictures.peek().filter((picture) => picture.id !== id);
    try {
      await this.database?.delete(STORE, id);
      if (this.trouble.peek() === "full") this.trouble.value = undefined;
    } catch {
      this.trouble.value = "forbidden";
    }
    await this.measure();
  }

  private async measure(): Promise<void> {
    try {
      const { usage = 0, quota = 0 } = (await navigator.storage?.estimate()) ?? {};
      this.room.value = quota > 0 ? { usage, quota } : undefined;
    } catch {
      this.room.value = undefined;
    }
  }
}

/** An origin may host several sites. */
function databaseName(): string {
  return `mlc-controlnet gallery ${new URL(".", location.href).pathname}`;
}
