/** The prompt, the button that draws, and the settings of the request. */

import { useEffect, useRef } from "preact/hooks";
import type { Run } from "../state/run";
import type { Studio } from "../state/studio";
import { t } from "../text";
import { MessageList } from "../widgets/message_list";
import { PresetChoice } from "./presets";
import { SettingsFields } from "./settings_fields";
import { Swatches } from "./swatches";

export function RequestForm({ studio, run }: { studio: Studio; run: Run }) {
  const { request, isBundledModel } = studio;
  const submit = (event: Event) => {
    event.preventDefault();
    void run.generate();
  };
  const placeholder = isBundledModel.value
    ? t.value.firstPrompt
    : request.mode.value === "inpaint"
      ? t.value.promptPlaceholderRepaint
      : t.value.promptPlaceholder;
  return (
    <form id="form" class="card" noValidate onSubmit={submit} aria-label={t.value.request}>
      <div class="prompt">
        <label for="prompt">{t.value.prompt}</label>
        <input
          id="prompt"
          type="text"
          autocomplete="off"
          spellcheck={false}
          value={request.prompt.value}
          placeholder={placeholder}
          onInput={({ currentTarget }) => {
            request.prompt.value = currentTarget.value;
          }}
        />
        <GenerateButton studio={studio} run={run} />
      </div>
      {isBundledModel.value && <Swatches prompt={request.prompt} />}
      <MessageList messages={studio.messages} place="request" />
      <PresetChoice studio={studio} />
      <SettingsFields studio={studio} />
    </form>
  );
}

/** Generate, or Cancel while a picture is drawn: one place, and the focus stays. */
function GenerateButton({ studio, run }: { studio: Studio; run: Run }) {
  const { running } = studio;
  const button = useRef<HTMLButtonElement>(null);
  const hadFocus = useRef(false);
  const isRunning = running.value !== undefined;
  hadFocus.current ||= document.activeElement === button.current && button.current !== null;
  useEffect(() => {
    if (hadFocus.current) button.current?.focus({ preventScroll: true });
    hadFocus.current = false;
  }, [isRunning]);
  if (!isRunning) {
    return (
      <button ref={button} key="generate" type="submit" id="generate" class="primary">
        {t.value.generate}
      </button>
    );
  }
  return (
    <button
      ref={button}
      key="cancel"
      type="button"
      id="cancel"
      class="primary"
      disabled={running.value?.signal.aborted}
      onClick={() => run.cancel()}
    >
      {t.value.cancel}
    </button>
  );
}
