/** A button that lets the visitor choose a file, most often a picture's. */

import { useRef } from "preact/hooks";

interface OpenFileProps {
  readonly label: string;
  readonly onFile: (file: File) => void;
  /** Which files; pictures if it is not said. */
  readonly accept?: string;
}

export function OpenFile({ label, onFile, accept = "image/*" }: OpenFileProps) {
  const input = useRef<HTMLInputElement>(null);
  const take = ({ currentTarget }: { currentTarget: HTMLInputElement }) => {
    const file = currentTarget.files?.[0];
    if (file !== undefined) onFile(file);
    currentTarget.value = ""; // the same file can be chosen again
  };
  return (
    <>
      <button type="button" onClick={() => input.current?.click()}>
        {label}
      </button>
      <input ref={input} type="file" accept={accept} hidden onChange={take} />
    </>
  );
}
