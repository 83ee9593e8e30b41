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

/** What a tab tells the others of this site: the key of a picture that was kept, or is no longer. */
type Change = { readonly added: number } | { readonly removed: number };

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
  private channel: BroadcastChannel | undefined;
  private nextUnkept = -1;

  /**
   * Open the pictures of earlier visits, and follow what other tabs of this site add and remove. Where that is forbidden, the
   * gallery holds the pictures of this visit only.
   */
  async open(): Promise<void> {
    try {
      this.database = await openDB<GallerySchema>(siteName(), 1, {
        upgrade: (database) => void database.createObjectStore(STORE, { autoIncrement: true }),
      });
      const read = this.readAll(this.database);
      this.follow(this.database, read); // from now on: what is kept after this reading began is told
      await read;
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
    if (id > 0) this.tell({ added: id });
    await this.measure();
  }

  async remove(id: number): Promise<void> {
    this.leaveOut(id);
    try {
      await this.database?.delete(STORE, id);
      if (this.trouble.peek() === "full") this.trouble.value = undefined;
      if (id > 0) this.tell({ removed: id });
    } catch {
      this.trouble.value = "forbidden";
    }
    await this.measure();
  }

  private async readAll(database: IDBPDatabase<GallerySchema>): Promise<void> {
    const { store } = database.transaction(STORE); // one for both: another tab may write between two
    const [keys, values] = await Promise.all([store.getAllKeys(), store.getAll()]);
    const kept = values.map((value, i) => ({ ...value, id: keys[i] }));
    this.pictures.value = [...this.pictures.peek(), ...kept.reverse()];
  }

  /** Do what other tabs have done, in their order, after `read`. */
  private follow(database: IDBPDatabase<GallerySchema>, read: Promise<void>): void {
    let last = read;
    this.channel = new BroadcastChannel(siteName());
    this.channel.addEventListener("message", ({ data }: MessageEvent<Change>) => {
      last = last.then(() => this.repeat(database, data)).catch(() => {}); // without storage there is nothing to repeat
    });
  }

  private async repeat(database: IDBPDatabase<GallerySchema>, change: Change): Promise<void> {
    if ("removed" in change) {
      this.leaveOut(change.removed);
      if (this.trouble.peek() === "full") this.trouble.value = undefined;
    } else {
      const id = change.added;
      const picture = await database.get(STORE, id);
      const shown = this.pictures.peek();
      if (picture === undefined || shown.some((other) => other.id === id)) return; // gone since, or read with the others
      const isNewer = (other: KeptPicture) => other.id < 0 || other.id > id; // those that are not kept come first
      this.pictures.value = [...shown.filter(isNewer), { ...picture, id }, ...shown.filter((other) => !isNewer(other))];
    }
    await this.measure();
  }

  private leaveOut(id: number): void {
    this.pictures.value = this.pictures.peek().filter((picture) => picture.id !== id);
  }

  private tell(change: Change): void {
    this.channel?.postMessage(change);
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
function siteName(): string {
  return `mlc-controlnet gallery ${new URL(".", location.href).pathname}`;
}
