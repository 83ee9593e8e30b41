/**
 * OpenCV.js builds its bindings from strings, which a page's policy without 'unsafe-eval' forbids. This plugin replaces the
 * four places by closures that do the same, as Emscripten's option DYNAMIC_EXECUTION=0 would have.
 */

import type { Plugin } from "vite";

/** Where a replaced part begins, where what follows it begins, and what takes its place. */
const REPLACEMENTS: readonly (readonly [begin: string, end: string, replacement: string])[] = [
  [
    'return new Function("body","return function "+name',
    "function extendError(",
    "return{[name]:function(){return body.apply(this,arguments)}}[name]}",
  ],
  [
    'var args=[];for(var i=1;i<signature.length;++i){args.push("a"+i)}',
    'var fp;if(Module["FUNCTION_TABLE_"+signature]',
    "return function(...args){return dynCall(rawFunction,...args)}}",
  ],
  [
    'var argsList="";var argsListWired="";',
    "function heap32VectorToArray(",
    `return function(...given){
      if(given.length!==argCount-2){throwBindingError("function "+humanName+" called with "+given.length+" arguments, expected "+(argCount-2)+" args!")}
      var destructors=needsDestructorStack?[]:null;
      var wired=isClassMethodFunc?[argTypes[1].toWireType(destructors,this)]:[];
      for(var i=0;i<argCount-2;++i){wired.push(argTypes[i+2].toWireType(destructors,given[i]))}
      var rv=cppInvokerFunc(cppTargetFunc,...wired);
      if(needsDestructorStack){runDestructors(destructors)}
      else{for(var i=isClassMethodFunc?1:2;i<argTypes.length;++i){
        if(argTypes[i].destructorFunction!==null){argTypes[i].destructorFunction(wired[isClassMethodFunc?i-1:i-2])}
      }}
      if(returns){return argTypes[0].fromWireType(rv)}
    }}`,
  ],
  [
    'var params=["retType"];var args=[retType];var argsList="";',
    "function __emval_get_property(",
    `return __emval_addMethodCaller(function(handle,name,destructors,args){
      var given=[];var offset=0;
      for(var i=1;i<argCount;++i){given.push(types[i].readValueFromPointer(args+offset));offset+=types[i]["argPackAdvance"]}
      var rv=handle[name](...given);
      for(var i=1;i<argCount;++i){if(types[i]["deleteObject"]){types[i].deleteObject(given[i-1])}}
      if(!retType.isVoid){return retType.toWireType(destructors,rv)}
    })}`,
  ],
];

/** Throws if OpenCV.js no longer has one of the places. */
export function withoutEval(source: string): string {
  let result = source;
  for (const [begin, end, replacement] of REPLACEMENTS) {
    const from = result.indexOf(begin);
    const to = result.indexOf(end, from);
    if (from < 0 || to < 0) throw new Error(`OpenCV.js has no longer: ${begin}`);
    result = result.slice(0, from) + replacement + result.slice(to);
  }
  if (/new Function\(|new_\(Function/.test(result)) throw new Error("OpenCV.js builds functions in another place, too");
  return result;
}

export function openCvWithoutEval(): Plugin {
  return {
    name: "opencv-without-eval",
    enforce: "pre",
    transform: (code, id) =>
      id.includes("@techstark/opencv-js/dist/opencv.js") ? { code: withoutEval(code), map: null } : undefined,
  };
}
