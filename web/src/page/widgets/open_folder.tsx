/** A button that lets the visitor choose a folder. */

import { useRef } from "preact/hooks";

interface OpenFolderProps {
  readonly label: string;
  /** The files below the folder; not called if there are none. */
  readonly onFiles: (files: FileList) => void;
}

export function OpenFolder({ label, onFiles }: OpenFolderProps) {
  const input = useRef<HTMLInputElement | null>(null);
  const begin = (element: HTMLInputElement | null) => {
    input.current = element;
    element?.setAttribute("webkitdirectory", "");
  };
  const take = ({ currentTarget }: { currentTarget: HTMLInputElement }) => {
    if (currentTarget.files?.length) onFiles(currentTarget.files);
    currentTarget.value = ""; // the same folder can be chosen again
  };
  return (
    <>
      <button type="button" onClick={() => input.current?.click()}>
        {label}
      </button>
      <input ref={begin} type="file" hidden onChange={take} />
    </>
  );
}
