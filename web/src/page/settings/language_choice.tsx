/** The language of the page. */

import { LANGUAGES, language, setLanguage, t } from "../text";

export function LanguageChoice() {
  return (
    <label class="language">
      {t.value.languageLabel}
      <select value={language.value} onChange={({ currentTarget }) => setLanguage(currentTarget.value)}>
        {Object.entries(LANGUAGES).map(([code, texts]) => (
          <option key={code} value={code} selected={code === language.value} lang={code}>
            {texts.languageName}
          </option>
        ))}
      </select>
    </label>
  );
}
