/** A map with a limit: what was not used for a long time makes room. */

export class Recent<K, V> {
  /** What was used lately. When it is full it becomes `old`, so that a use costs one look-up and moves nothing. */
  private young = new Map<K, V>();
  private old = new Map<K, V>();

  /**
   * @param limit the largest number of values; the latest half of them is never removed
   * @param onRemoved is called with each value that leaves the map, and its key
   */
  constructor(
    private readonly limit: number,
    private readonly onRemoved: (value: V, key: K) => void = () => {},
  ) {}

  get(key: K): V | undefined {
    const young = this.young.get(key);
    if (young !== undefined) return young;
    const old = this.old.get(key);
    if (old === undefined) return undefined;
    this.old.delete(key);
    this.add(key, old);
    return old;
  }

  set(key: K, value: V): void {
    this.delete(key);
    this.add(key, value);
  }

  /** All values, in no order that means anything. */
  *values(): Generator<V> {
    yield* this.young.values();
    yield* this.old.values();
  }

  delete(key: K): void {
    const value = this.young.get(key) ?? this.old.get(key);
    if (value === undefined) return;
    this.young.delete(key);
    this.old.delete(key);
    this.onRemoved(value, key);
  }

  private add(key: K, value: V): void {
    this.young.set(key, value);
    if (2 * this.young.size < this.limit) return;
    for (const [removed, other] of this.old) this.onRemoved(other, removed);
    this.old = this.young;
    this.young = new Map();
  }
}
