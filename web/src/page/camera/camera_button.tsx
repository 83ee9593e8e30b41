/** A button that takes a picture with the camera. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Image } from "../../worker";
import { t } from "../text";
import { Dialog } from "../widgets/dialog";
import { Select } from "../widgets/fields";
import { cameraError, closeCamera, listCameras, openCamera, takeStill } from "./camera";

interface CameraProps {
  readonly onPicture: (picture: Image) => void;
  /** Says why there is none. */
  readonly onError: (error: unknown) => void;
}

export function CameraButton(props: CameraProps) {
  const isOpen = useSignal(false);
  return (
    <>
      <button
        type="button"
        aria-haspopup="dialog"
        onClick={() => {
          isOpen.value = true;
        }}
      >
        {t.value.takePhoto}
      </button>
      {isOpen.value && (
        <CameraDialog
          {...props}
          onClose={() => {
            isOpen.value = false;
          }}
        />
      )}
    </>
  );
}

function CameraDialog({ onPicture, onError, onClose }: CameraProps & { readonly onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const video = useRef<HTMLVideoElement>(null);
  const chosen = useSignal<string | undefined>(undefined);
  const cameras = useSignal<readonly MediaDeviceInfo[]>([]);
  const isReady = useSignal(false);
  const fail = (error: unknown) => {
    dialog.current?.close();
    onError(error);
  };
  useEffect(() => dialog.current?.showModal(), []);
  useEffect(() => {
    let stream: MediaStream | undefined;
    let isOver = false;
    const open = async () => {
      stream = await openCamera(chosen.value);
      if (isOver || video.current === null) return closeCamera(stream);
      stream.getVideoTracks()[0].addEventListener("ended", () => fail(cameraError("busy"))); // it was unplugged
      video.current.srcObject = stream;
      cameras.value = await listCameras();
    };
    open().catch((error) => !isOver && fail(error));
    return () => {
      isOver = true;
      isReady.value = false;
      closeCamera(stream);
    };
  }, [chosen.value]);
  const take = () => {
    if (video.current === null) return;
    const picture = takeStill(video.current);
    dialog.current?.close();
    onPicture(picture);
  };
  return (
    <Dialog dialog={dialog} class="camera" label={t.value.camera} isTitled onClose={onClose}>
      <div class={isReady.value ? "stage" : "stage vacant"}>
        <video
          ref={video}
          aria-label={t.value.cameraView}
          muted
          autoplay
          playsInline
          onLoadedData={() => {
            isReady.value = true;
          }}
        />
        {!isReady.value && <p class="placeholder">{t.value.cameraWaiting}</p>}
      </div>
      <div class="buttons">
        <button type="button" class="primary" disabled={!isReady.value} onClick={take}>
          {t.value.takeStill}
        </button>
        {cameras.value.length > 1 && (
          <Select
            label={t.value.camera}
            options={cameras.value.map(({ deviceId }) => deviceId)}
            text={(id) => cameras.value.find(({ deviceId }) => deviceId === id)?.label || id}
            value={chosen.value ?? cameras.value[0].deviceId}
            onChange={(id) => {
              chosen.value = id;
            }}
          />
        )}
      </div>
    </Dialog>
  );
}
