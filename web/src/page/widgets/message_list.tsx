/** Errors and notices, where they belong. */

import { useEffect, useRef } from "preact/hooks";
import type { Message, Messages, Place } from "../state/messages";

export function MessageList({ messages, place }: { messages: Messages; place: Place }) {
  const here = messages.list.value.filter((message) => message.place === place);
  return (
    <div class="messages" aria-live="assertive">
      {here.map((message) => (
        <MessageBox key={message.id} message={message} />
      ))}
    </div>
  );
}

function MessageBox({ message }: { message: Message }) {
  const box = useRef<HTMLDivElement>(null);
  const { kind, subject, text, original } = message;
  useEffect(() => {
    if (kind !== "error") return;
    scrollTo({ top: scrollY, behavior: "instant" }); // stops a scroll to the picture that is under way
    box.current?.scrollIntoView({ block: "nearest" });
  }, [kind]);
  return (
    <div ref={box} class={`message ${kind}`}>
      {text.map((paragraph, i) => (
        <p key={paragraph}>
          {i === 0 && subject !== undefined && <strong>{subject}: </strong>}
          {paragraph}
        </p>
      ))}
      {original !== undefined && (
        <p lang="en">
          <small>{original}</small>
        </p>
      )}
    </div>
  );
}
